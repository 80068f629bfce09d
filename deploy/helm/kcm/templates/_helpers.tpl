{{- /* The name of everything. KubeRay leaves room for 29 characters: a RayCronJob's name has 36, with "-update". */ -}}
{{- define "kcm.name" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,27}[a-z0-9])?$" .Release.Name) -}}
{{- fail (printf "release name %q: at most 29 small letters, digits and dashes, the first a letter" .Release.Name) -}}
{{- end -}}
{{- .Release.Name -}}
{{- end -}}

{{- /* CONFIG as a map; it names what every node must find: a run, and a storage that all of them reach. */ -}}
{{- define "kcm.config" -}}
{{- $config := fromYaml .Values.config -}}
{{- if $config.Error -}}{{- fail (printf "config: %s" $config.Error) -}}{{- end -}}
{{- range $key := list "name" "storage_path" "assets_path" -}}
{{- if not (get $config $key) -}}
{{- fail (printf "config: `%s` is missing in CONFIG (--set-file config=CONFIG)" $key) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.update.enabled (not (hasKey $config "update")) -}}
{{- fail "config: `update` is missing in CONFIG, though `update.enabled` is set: add `update: {}` to the file" -}}
{{- end -}}
{{- range $key := list "storage_path" "assets_path" -}}
{{- $path := get $config $key | toString -}}
{{- if not (or (contains "://" $path) (and $.Values.volume (hasPrefix "/mnt/kcm/" $path))) -}}
{{- $hint := "name a bucket, or a folder below /mnt/kcm and set `volume`" -}}
{{- fail (printf "config: %s %s is on no volume of the pods: %s" $key $path $hint) -}}
{{- end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{- /* The names of all Secrets that pods look for. */ -}}
{{- define "kcm.secrets" -}}
{{- $names := list -}}
{{- range .Values.env -}}
{{- with dig "valueFrom" "secretKeyRef" "name" "" . -}}{{- $names = append $names . -}}{{- end -}}
{{- end -}}
{{- with .Values.serve -}}
{{- if .enabled -}}{{- $names = concat $names (list .keysSecret .redis.secret | compact) -}}{{- end -}}
{{- end -}}
{{- join " " $names -}}
{{- end -}}

{{- /* By these a PodDisruptionBudget, a NetworkPolicy and Prometheus find pods: (list . COMPONENT). Pods keep the
app.kubernetes.io/name that KubeRay gives them: the Services of its heads select by it. */ -}}
{{- define "kcm.selector" -}}
app.kubernetes.io/instance: {{ include "kcm.name" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "kcm.labels" -}}
app.kubernetes.io/name: kcm
{{ include "kcm.selector" . }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end -}}

{{- /* Requests are limits: Ray counts on what it is told, and a pod that takes more is ended by its node. */ -}}
{{- define "kcm.resources" -}}
requests: {{ toJson . }}
limits: {{ toJson . }}
{{- end -}}

{{- define "kcm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Pod and container of every kind: (dict "root" . "component" "run" "name" "ray-head" "resources" {...}), and of
a cluster also "group". All that a process writes goes to /tmp, which is also its home: caches, Ray's session, logs. */ -}}
{{- define "kcm.pod" -}}
{{- $values := .root.Values -}}
{{- $group := .group | default dict -}}
{{- $serve := eq .component "serve" -}}
{{- $image := $group.image | default $values.image -}}
{{- if hasSuffix ":latest" $image -}}
{{- fail (printf "image %s: nodes that start later would get another version: name a tag that stays" $image) -}}
{{- end -}}
metadata:
  labels: {{- include "kcm.selector" (list .root .component) | nindent 4 }}
spec:
  restartPolicy: Never  # the autoscaler, the operator or a new try puts another pod in its place
  serviceAccountName: {{ include "kcm.name" .root }}
  {{- /* The autoscaler beside a head asks Kubernetes for pods; nothing else may. */}}
  automountServiceAccountToken: {{ eq .name "ray-head" }}
  securityContext:  # the user `ray` of the image
    {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 100, fsGroup: 100, seccompProfile: {type: RuntimeDefault}}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets: {{ toJson . }}
  {{- end }}
  {{- with $group.nodeSelector }}
  nodeSelector: {{ toJson . }}
  {{- end }}
  {{- with $group.tolerations }}
  tolerations: {{ toJson . }}
  {{- end }}
  {{- if $serve }}
  terminationGracePeriodSeconds: {{ add $values.serve.drainSeconds 60 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "kcm.selector" (list .root .component) | nindent 10 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ $image }}
      imagePullPolicy: {{ $values.imagePullPolicy }}
      workingDir: /tmp
      securityContext: {{- include "kcm.containerSecurity" . | nindent 8 }}
      resources: {{- include "kcm.resources" .resources | nindent 8 }}
      {{- with .command }}
      command: {{ toJson . }}
      {{- end }}
      env:
        - {name: HOME, value: /tmp}
        {{- if $serve }}
        # What jobs/configs/serve.yaml asks of every node; on the head alone all requests would pass through it.
        - {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
        - {name: RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S, value: "30"}
        - {name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, value: "pipelines.serve.deploy.environment:middleware"}
        - {name: RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S, value: "60"}
        - {name: RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD, value: "0"}
        {{- end }}
        {{- range $values.env }}
        - {{ toJson . }}
        {{- end }}
      {{- if $serve }}
      ports:
        - {containerPort: 8000, name: serve}
        - {containerPort: 8080, name: metrics}
        - {containerPort: 9101, name: haproxy}
        {{- if eq .name "ray-head" }}
        - {containerPort: 6379, name: gcs-server}
        - {containerPort: 8265, name: dashboard}
        {{- else }}
      # KubeRay's own asks the proxy alone, this one whether an item can go the whole way. Liveness is KubeRay's.
      readinessProbe:
        httpGet: {path: /readyz, port: serve}
        initialDelaySeconds: 10
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
        {{- end }}
      {{- end }}
      {{- if hasPrefix "ray-" .name }}
      lifecycle:
        preStop: {exec: {command: [sh, -c, "{{ if $serve }}sleep {{ $values.serve.drainSeconds }}; {{ end }}ray stop"]}}
      {{- end }}
      volumeMounts:
        - {name: scratch, mountPath: /tmp}
        {{- if .command }}
        - {name: shm, mountPath: /dev/shm}
        {{- end }}
        {{- if $values.volume }}
        - {name: storage, mountPath: /mnt/kcm}
        {{- end }}
        {{- if $serve }}
        - {name: keys, mountPath: /etc/kcm, readOnly: true}
        {{- else }}
        - {name: config, mountPath: /etc/kcm, readOnly: true}
        {{- end }}
  volumes:
    - {name: scratch, emptyDir: {sizeLimit: {{ $values.scratch }}}}
    {{- if .command }}
    # A Ray cluster of its own, whose object store finds 64 MiB otherwise; those of KubeRay have it.
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: 1Gi}}
    {{- end }}
    {{- with $values.volume }}
    - {{ toJson (merge (dict "name" "storage") .) }}
    {{- end }}
    {{- if $serve }}
    - {name: keys, secret: {secretName: {{ $values.serve.keysSecret }}}}
    {{- else }}
    - {name: config, configMap: {name: {{ include "kcm.name" .root }}}}
    {{- end }}
{{- end -}}

{{- /* A Ray cluster: (dict "root" . "component" "run" "spec" .Values.run). */ -}}
{{- define "kcm.cluster" -}}
{{- $values := .root.Values -}}
rayVersion: {{ .root.Chart.Annotations.ray | quote }}
authOptions: {mode: token}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ $values.autoscaler.idleSeconds }}
  resources: {{- include "kcm.resources" $values.autoscaler.resources | nindent 4 }}
  securityContext: {{- include "kcm.containerSecurity" . | nindent 4 }}
  env: [{name: HOME, value: /tmp}]
  volumeMounts: [{name: scratch, mountPath: /tmp}]
{{- with .spec.redis }}
{{- if .address }}
gcsFaultToleranceOptions:
  redisAddress: {{ .address }}
  {{- with .secret }}
  redisPassword: {valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}}
  {{- end }}
{{- end }}
{{- end }}
headGroupSpec:
  rayStartParams: {num-cpus: "0"}  # no work on the head
  {{- $head := .spec.head }}
  template: {{- include "kcm.pod" (merge (dict "name" "ray-head" "resources" $head.resources "group" $head) .) | nindent 4 }}
workerGroupSpecs:
  {{- range .spec.groups }}
  {{- if lt (int .max) (int .min) }}{{ fail (printf "group %s: max %v is less than min %v" .name .max .min) }}{{ end }}
  - groupName: {{ .name }}
    replicas: {{ .min }}
    minReplicas: {{ .min }}
    maxReplicas: {{ .max }}
    {{- with .priority }}
    priority: {{ . }}
    {{- end }}
    rayStartParams: {}
    template: {{- include "kcm.pod" (merge (dict "name" "ray-worker" "resources" .resources "group" .) $) | nindent 6 }}
  {{- end }}
{{- end -}}

{{- /* A command on a cluster of its own: (dict "root" . "component" "run" "entrypoint" "kcm run"). The submitter is a pod
of ours, since KubeRay's own sidecar could not be told to drop its privileges. */ -}}
{{- define "kcm.job" -}}
{{- $run := .root.Values.run -}}
entrypoint: {{ .entrypoint }} /etc/kcm/config.yaml
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ $run.ttlSeconds }}
activeDeadlineSeconds: {{ $run.deadlineSeconds }}
backoffLimit: {{ $run.backoffLimit }}
submissionMode: K8sJobMode
{{- $small := dict "cpu" "500m" "memory" "1Gi" }}
submitterPodTemplate: {{- include "kcm.pod" (merge (dict "name" "submitter" "resources" $small) .) | nindent 2 }}
rayClusterSpec: {{- include "kcm.cluster" (merge (dict "spec" $run) .) | nindent 2 }}
{{- end -}}
