"""Which toolkit cuda_configure.bzl takes, and what it says of one that does not work: cuda_configure_test.py FILE

The rule is run as Python, of which Starlark is a part, with a machine that is made up.
"""
import sys
import unittest

_NVCC_13 = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n"
_NVCC_11 = "Cuda compilation tools, release 11.8, V11.8.89\n"


class _Failed(Exception):
    """What Bazel's fail() says."""


def _fail(message):
    raise _Failed(message)


class _Path:
    def __init__(self, machine, name):
        self._machine, self._name = machine, name

    def get_child(self, name):
        return _Path(self._machine, f"{self._name}/{name}")

    @property
    def exists(self):
        return self._name in self._machine.programs

    @property
    def realpath(self):
        return self

    @property
    def dirname(self):
        return _Path(self._machine, self._name.rsplit("/", 1)[0])

    def __str__(self):
        return self._name


class _Result:
    def __init__(self, return_code, stdout="", stderr=""):
        self.return_code, self.stdout, self.stderr = return_code, stdout, stderr


class _Machine:
    """`toolkits`: folder -> what its nvcc says of its version, or None where it does not run. The repository_ctx, too."""

    def __init__(self, toolkits, environment=None, in_path="", compiles=True):
        self.programs = {f"{home}/bin/nvcc": says for home, says in toolkits.items()}
        self.environ = environment or {}
        self.os = self
        self._found = {"g++": _Path(self, "/usr/bin/g++")}
        if in_path:
            self._found["nvcc"] = _Path(self, in_path + "/bin/nvcc")
        self._compiles = compiles
        self.files = {}

    def path(self, name):
        return _Path(self, name)

    def which(self, name):
        return self._found.get(name)

    def file(self, name, content):
        self.files[name] = content

    def execute(self, command):
        says = self.programs.get(str(command[0]))
        if says is None:
            return _Result(1)
        if "--version" in command:
            return _Result(0, says)
        return _Result(0) if self._compiles else _Result(1, "", "note\nprobe.cu: error: this g++ is too new\n")


def _configure(machine):
    """The values of defs.bzl, as a dict."""
    rule = {"fail": _fail, "repository_rule": lambda **arguments: arguments["implementation"]}
    with open(_FILE, encoding="utf-8") as source:
        exec(compile(source.read(), _FILE, "exec"), rule)  # pylint: disable=exec-used
    rule["cuda_configure"](machine)
    values = {}
    exec(machine.files["defs.bzl"], values)  # pylint: disable=exec-used
    return values


class CudaConfigureTest(unittest.TestCase):
    def test_takes_the_toolkit_that_is_named(self):
        for name in ("CUDA_HOME", "CUDA_PATH"):
            machine = _Machine({"/mine": _NVCC_13, "/usr/local/cuda": _NVCC_13}, {name: "/mine"})
            values = _configure(machine)
            self.assertTrue(values["HAVE_CUDA"])
            self.assertEqual((values["NVCC"], values["CUDA_VERSION"]), ("/mine/bin/nvcc", "13.0"))
            self.assertIn("-L/mine/lib64", machine.files["BUILD"])

    def test_home_comes_before_path(self):
        named = {"CUDA_HOME": "/home", "CUDA_PATH": "/path"}
        self.assertEqual(_configure(_Machine({"/home": _NVCC_13, "/path": None}, named))["NVCC"], "/home/bin/nvcc")

    def test_a_toolkit_that_is_named_and_does_not_work_is_an_error(self):
        broken = (
            ({}, True, "there is no /mine/bin/nvcc"),
            ({"/mine": None}, True, "/mine/bin/nvcc does not run"),
            ({"/mine": _NVCC_11}, True, "/mine/bin/nvcc is of CUDA 11.8; 12.0 or later is needed"),
            ({"/mine": _NVCC_13}, False, "cannot compile with /usr/bin/g++: probe.cu: error: this g++ is too new"),
        )
        for name in ("CUDA_HOME", "CUDA_PATH"):
            for toolkits, compiles, reason in broken:
                # Whatever else there is.
                machine = _Machine({"/usr/local/cuda": _NVCC_13, **toolkits}, {name: "/mine"}, compiles=compiles)
                with self.assertRaises(_Failed) as failed:
                    _configure(machine)
                said = str(failed.exception)
                self.assertIn(f"{name}=/mine is of no use: ", said)
                self.assertIn(reason, said)
                self.assertIn("NO_CUDA=1", said)

    def test_no_cuda_asks_for_nothing(self):
        values = _configure(_Machine({}, {"NO_CUDA": "1", "CUDA_HOME": "/mine"}))
        self.assertEqual((values["HAVE_CUDA"], values["WHY_NOT"]), (False, "NO_CUDA is set"))
        self.assertTrue(_configure(_Machine({"/mine": _NVCC_13}, {"NO_CUDA": "0", "CUDA_HOME": "/mine"}))["HAVE_CUDA"])

    def test_what_nobody_names_is_looked_for(self):
        both = {"/opt": _NVCC_13, "/usr/local/cuda": _NVCC_13}
        self.assertEqual(_configure(_Machine(both, in_path="/opt"))["NVCC"], "/opt/bin/nvcc")
        self.assertEqual(_configure(_Machine(both))["NVCC"], "/usr/local/cuda/bin/nvcc")
        old = {"/opt": _NVCC_11, "/usr/local/cuda": _NVCC_13}
        self.assertEqual(_configure(_Machine(old, in_path="/opt"))["NVCC"], "/usr/local/cuda/bin/nvcc")
        # Set and empty is not set.
        self.assertTrue(_configure(_Machine(both, {"CUDA_HOME": ""}))["HAVE_CUDA"])

    def test_none_is_no_error(self):
        values = _configure(_Machine({"/opt": _NVCC_11}, in_path="/opt"))
        self.assertFalse(values["HAVE_CUDA"])
        self.assertIn("/opt/bin/nvcc is of CUDA 11.8", values["WHY_NOT"])
        self.assertIn("there is no /usr/local/cuda/bin/nvcc", values["WHY_NOT"])


if __name__ == "__main__":
    _FILE = sys.argv.pop(1)
    unittest.main()
