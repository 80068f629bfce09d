# The image of `kcm` alone, and of every node in deploy/ and cluster.yaml.
#
#   docker build -t kcm:0.1.0 .
#   docker build -t kcm:0.1.0-gpu --build-arg RAY_TAG=2.60.0-py311-gpu \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
#   docker run -p 8000:8000 -v "$PWD:/home/ray/work" kcm:0.1.0 kcm serve CONFIG --set serve.host=0.0.0.0
ARG RAY_TAG=2.60.0-py311

FROM rayproject/ray:${RAY_TAG} AS wheel
WORKDIR /home/ray/source
COPY --chown=ray:users pyproject.toml README.md LICENSE ./
COPY --chown=ray:users kcm kcm
COPY --chown=ray:users pipelines pipelines
COPY --chown=ray:users jobs jobs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /home/ray/wheel .

FROM rayproject/ray:${RAY_TAG}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_VERSION=2.13.0
COPY constraints.txt /home/ray/constraints.txt
# torch first: the default index would bring CUDA's libraries, gigabytes that a CPU cannot use.
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}"
COPY --from=wheel /home/ray/wheel /home/ray/wheel
# Compiled once: a process without bytecode takes twice the time to import Ray, torch and MLflow.
RUN pip install --no-cache-dir --constraint /home/ray/constraints.txt "$(echo /home/ray/wheel/kcm_cascade-*.whl)[hub,postgres,ray]" \
    && { python -m compileall -q -j 0 "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" > /dev/null || true; }
WORKDIR /home/ray/work
EXPOSE 8000
CMD ["kcm", "--help"]
