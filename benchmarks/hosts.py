"""Several hosts on this machine, for tests of a cluster: each is a set of Linux namespaces with folders of its own.

A host has an address, processes, /tmp, /dev/shm, /home and /run that no other host sees; the rest of the file system,
with the checkout and the Python environment in it, is shared. The hosts reach each other over a bridge and nothing
else. It takes root and the right to make namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUBNET = "10.83.0"
HOME = "/home/kcm"
_SHARED = [ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]  # even where they lie below /tmp or /home
_WITH_US = ["setpriv", "--pdeathsig", "KILL"]  # a host does not outlive the process that made it
_PRIVATE = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"]
_INIT = """
set -e
hostname {name}
mount -t tmpfs -o mode=755 tmpfs /mnt
number=0
for shared in {shared}; do
    number=$((number + 1)); mkdir /mnt/$number; mount --bind "$shared" /mnt/$number
done
for folder in /tmp /dev/shm /home /run; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
number=0
for shared in {shared}; do
    number=$((number + 1))
    [ -d "$shared" ] || {{ mkdir -p "$shared"; mount --bind /mnt/$number "$shared"; }}
done
mkdir {home}
echo ready
trap : TERM INT
while :; do sleep 3600 & wait $!; done
"""


def why_no_hosts() -> str | None:
    """Why this machine lets us have no hosts; None where it does."""
    if missing := [
        program for program in ("ip", "unshare", "nsenter", "mount", "setpriv", "curl") if shutil.which(program) is None
    ]:
        return f"hosts need {', '.join(missing)} (util-linux, iproute2, curl)"
    try:
        with lan() as probe:
            probe.host("probe").run("true")
    except (subprocess.SubprocessError, AssertionError, OSError) as error:
        return f"namespaces are not permitted here: {error}"
    return None


@dataclass
class Host:
    """A host; `init` is its first process, with which everything on it ends."""

    name: str
    address: str
    namespace: str
    init: subprocess.Popen[str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """The first process within the namespaces; `init` itself is `unshare`, its parent."""
        children = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
        return int(children[0])

    def start(
        self, command: Sequence[str], log: str | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start a command in the home folder; its output goes to a file of that folder, or to pipes."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--ipc", "--pid"]
        path = os.pathsep.join([str(Path(sys.prefix) / "bin"), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"])
        base = {"HOME": HOME, "PATH": path, "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        base["PYTHONPYCACHEPREFIX"] = "/var/tmp/kcm-hosts-bytecode"
        words = [f"{name}={value}" for name, value in (base | self.environment).items()]
        # What is left to itself is not nsenter's own child: nsenter stops with a child that is stopped, and would never
        # collect it, so that the host could not end.
        script = f'"$@" >{log} 2>&1 </dev/null; exit $?' if log else 'exec "$@"'
        pipes = None if log else subprocess.PIPE
        return subprocess.Popen(
            [*enter, "env", "-i", *words, "bash", "-c", f"cd {HOME}; {script}", "-", *command],
            text=True,
            stdout=pipes,
            stderr=pipes,
            stdin=stdin,
            start_new_session=True,
        )

    def run(self, *command: str, timeout_s: float = 300, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the home folder to its end. AssertionError with its output if it fails."""
        process = self.start(command)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert not check or process.returncode == 0, f"{self.name}: {' '.join(command)}\n{out}\n{err}"
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    def file(self, name: str) -> Path:
        """A file of the home folder, as this machine sees it."""
        return Path(f"/proc/{self.pid}/root{HOME}", name)

    def power_off(self) -> None:
        """Kill all processes here without notice, as a power cut does."""
        with suppress(ProcessLookupError, IndexError, FileNotFoundError):
            os.kill(self.pid, 9)
        self.init.wait()

    def power_on(self) -> None:
        """Start the host again after a power cut, with empty folders."""
        self.init = _boot(self.name, self.namespace)


def _boot(name: str, namespace: str) -> subprocess.Popen[str]:
    """The first process of a host, which has made the host's folders."""
    script = _INIT.format(name=name, shared=" ".join(f"'{path}'" for path in _SHARED), home=HOME)
    unshare = ["unshare", *_PRIVATE, "--kill-child"]
    init = subprocess.Popen(
        [*_WITH_US, "ip", "netns", "exec", namespace, *unshare, "--propagation=private", "bash", "-c", script],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert init.stdout is not None
    assert init.stdout.readline() == "ready\n", f"the host {name} does not start"
    return init


@dataclass
class Lan:
    """Hosts on one bridge."""

    prefix: str = field(default_factory=lambda: f"kcm{os.getpid()}")
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def switch(self) -> str:
        return f"{self.prefix}-switch"

    def host(self, name: str, **environment: str) -> Host:
        """A new host with the next address."""
        number = 10 + len(self.hosts)
        namespace = f"{self.prefix}-{name}"
        _ip("netns", "add", namespace)
        _ip("-n", self.switch, "link", "add", self._link(number), "type", "veth", "peer", "eth0", "netns", namespace)
        _ip("-n", self.switch, "link", "set", self._link(number), "master", "br0", "up")
        _ip("-n", namespace, "addr", "add", f"{SUBNET}.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")
        self.hosts[name] = Host(name, f"{SUBNET}.{number}", namespace, _boot(name, namespace), environment)
        return self.hosts[name]

    def cut(self, host: Host, seconds: float) -> None:
        """Let nothing reach a host for a while."""
        link = self._link(int(host.address.rpartition(".")[2]))
        _ip("-n", self.switch, "link", "set", link, "down")
        try:
            time.sleep(seconds)
        finally:
            _ip("-n", self.switch, "link", "set", link, "up")

    def _link(self, number: int) -> str:
        return f"port{number}"


@contextmanager
def lan() -> Iterator[Lan]:
    """A bridge for the hosts that are made in the block, and end with it."""
    net = Lan()
    _ip("netns", "add", net.switch)
    try:
        _ip("-n", net.switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", net.switch, "link", "set", "br0", "up")
        yield net
    finally:
        for host in net.hosts.values():
            host.power_off()
            subprocess.run(["ip", "netns", "del", host.namespace], check=False)
        _ip("netns", "del", net.switch)


def wait_for(host: Host, address: str, port: int, timeout_s: float = 180) -> None:
    """Wait until something listens at an address that a host reaches."""
    deadline = time.monotonic() + timeout_s
    while host.run("timeout", "2", "bash", "-c", f"</dev/tcp/{address}/{port}", check=False).returncode:
        assert time.monotonic() < deadline, f"nothing listens at {address}:{port}"
        time.sleep(0.5)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
