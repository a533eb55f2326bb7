"""Types command lines into a shell on a terminal of its own, presses Tab, and compares what the line became.

Arguments: the shell and its arguments. Standard input: a JSON object. `lines` has pairs of what is typed and
the line after Tab, `lists` has what is typed and the words that the shell then shows. The shell's start file
makes the prompt `READY> `, and Ctrl-T writes the line into the file that DUMP names.
"""
import fcntl, json, os, pty, re, select, struct, sys, termios, time

TIMEOUT = 30


def main():
    cases = json.load(sys.stdin)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[1], sys.argv[1:])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    shell = Shell(terminal)
    shell.wait_for("the prompt", lambda: "READY> " in shell.shown)
    for typed, line in cases["lines"]:
        shell.type(typed + "\t")
        shell.wait_for(f"{typed!r} completed to {line!r}", lambda: shell.line() == line)
        shell.clear()
    for typed, words in cases["lists"]:
        shell.shown = ""
        shell.type(typed + "\t\t")
        shell.wait_for(f"{typed!r} lists {words}", lambda: all(word in shell.plain() for word in words))
        shell.clear()
    os.close(terminal)


class Shell:
    def __init__(self, terminal):
        self.terminal, self.shown = terminal, ""

    def type(self, text):
        os.write(self.terminal, text.encode())

    def read(self, seconds):
        if select.select([self.terminal], [], [], seconds)[0]:
            self.shown += os.read(self.terminal, 65536).decode(errors="replace")

    def plain(self):
        return re.sub(r"\x1b(\[[0-9;?<>=]*[a-zA-Z]|[()][A-Z0-9]|[=>])", "", self.shown)

    def line(self):
        """What is typed, by way of Ctrl-T; nothing where the shell does not write it within a second."""
        path = os.environ["DUMP"]
        if os.path.exists(path):
            os.remove(path)
        self.type("\x14")
        until = time.monotonic() + 1
        while not os.path.exists(path):
            if time.monotonic() > until:
                return None
            self.read(0.02)
        with open(path) as file:
            return file.read().rstrip("\n")

    def clear(self):
        """Ctrl-U. Not Ctrl-C: the terminal drops the keys that follow it."""
        self.type("\x15")
        self.wait_for("an empty line", lambda: self.line() == "")

    def wait_for(self, what, holds):
        until = time.monotonic() + TIMEOUT
        while not holds():
            if time.monotonic() > until:
                sys.exit(f"{sys.argv[1]}: not within {TIMEOUT} s: {what}; shown:\n{self.plain()[-3000:]}")
            self.read(0.05)


main()
