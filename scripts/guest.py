"""A small Linux guest that takes commands on its serial line (tests/linux/init): for scripts/bench-cpu and scripts/conformance."""
import os
import socket
import subprocess
import sys
import tempfile
import time


def cpu_seconds(pid):
    """CPU time of a whole process, to the nanosecond (the clock ids of clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


class Guest:
    """A machine with a processor of model "max" on a software CPU, from its start to the first process."""

    def __init__(self, folder, binary, cpus, kernel, initrd, mib=512, limit=1800):
        path = os.path.join(folder, "line")
        if os.path.exists(path):
            os.unlink(path)
        command = [binary, "-accel", "tcg", "-cpu", "max", "-m", str(mib), "-smp", str(cpus), "-display", "none", "-no-reboot",
                   "-monitor", "none", "-parallel", "none", "-chardev", f"socket,id=line,path={path},server=on,wait=off",
                   "-serial", "chardev:line", "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet"]
        self.said = tempfile.TemporaryFile()
        start = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.said)
        self.line = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.line.connect(path)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > start + limit:
                    self.give_up("did not start")
                time.sleep(0.005)
        self.text = b""
        self.line.settimeout(limit)
        self.wait("guest: ")
        self.boot = cpu_seconds(self.process.pid), time.monotonic() - start
        self.wait("ready")

    def give_up(self, what):
        self.said.seek(0)
        self.process.kill()
        tail = self.text[-2000:].decode(errors="replace")
        sys.exit(f"{self.process.args[0]} {what}\n{self.said.read().decode(errors='replace')}{tail}")

    def wait(self, text):
        """Reads to this text; returns the rest of what came before it."""
        mark = text.encode()
        while mark not in self.text:
            try:
                data = self.line.recv(65536)
            except TimeoutError:
                data = b""
            if not data:
                self.give_up(f"did not say '{text}'")
            self.text += data
        before, self.text = self.text.split(mark, 1)
        return before.decode(errors="replace")

    def send(self, command):
        self.line.sendall(command.encode() + b"\n")

    def command(self, command):
        """What a command said before it ended."""
        self.send(command)
        return self.wait("guest: status ")

    def end(self):
        self.send("poweroff -f")
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.give_up("did not power off")
        if status != 0:
            self.give_up(f"ended with status {status}")
