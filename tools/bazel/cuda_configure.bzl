"""A repository that describes the CUDA toolkit of this machine: `@cuda//:cudart`, and HAVE_CUDA, WHY_NOT, NVCC,
HOST_COMPILER and CUDA_VERSION in `@cuda//:defs.bzl`.

The toolkit is that of CUDA_HOME or, where that is not set, of CUDA_PATH; one that is named and does not work is an error.
Where neither is set it is looked for beside the nvcc of PATH and in /usr/local/cuda. Without one that works, or with
NO_CUDA=1, HAVE_CUDA is False, and the targets of tools/bazel/cuda.bzl are skipped. A GPU is not needed.
"""

# C++20, sm_90a and __grid_constant__.
_OLDEST = 12

def _version(ctx, nvcc):
    """Returns "13.0", or "" where nvcc does not run."""
    result = ctx.execute([nvcc, "--version"])
    if result.return_code != 0 or "release " not in result.stdout:
        return ""
    return result.stdout.split("release ")[1].split(",")[0].strip()

def _try(ctx, home, compiler):
    """Returns (reason why this toolkit is of no use, nvcc, version)."""
    nvcc = ctx.path(home).get_child("bin").get_child("nvcc")
    if not nvcc.exists:
        return "there is no %s" % nvcc, "", ""
    version = _version(ctx, nvcc)
    if not version:
        return "%s does not run" % nvcc, "", ""
    if int(version.split(".")[0]) < _OLDEST:
        return "%s is of CUDA %s; %d.0 or later is needed" % (nvcc, version, _OLDEST), "", ""

    # Whether it accepts the compiler of the host.
    ctx.file("probe.cu", "#include <cuda_runtime.h>\n")
    flags = ["-std=c++20", "-gencode=arch=compute_90a,code=sm_90a", "-ccbin=%s" % compiler]
    probe = ctx.execute([nvcc, "-E", "-o", "probe.txt"] + flags + ["probe.cu"])
    if probe.return_code != 0:
        lines = [line for line in probe.stderr.splitlines() if "error" in line] + ["no reason given"]
        return "%s cannot compile with %s: %s" % (nvcc, compiler, lines[0]), "", ""
    return "", str(nvcc), version

def _find(ctx):
    """Returns (reason that CUDA is absent, home, nvcc, version, compiler of the host)."""
    environment = ctx.os.environ
    if environment.get("NO_CUDA", "") not in ("", "0"):
        return "NO_CUDA is set", "", "", "", ""
    compiler = ctx.which("g++")
    if not compiler:
        return "g++ is not in PATH", "", "", "", ""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        home = environment.get(name, "")
        if not home:
            continue
        reason, nvcc, version = _try(ctx, home, compiler)
        if reason:
            # Whoever names a toolkit wants CUDA, and would take tests that are skipped for tests that pass.
            fail("%s=%s is of no use: %s. Let it name a CUDA toolkit, unset it, or build without CUDA by NO_CUDA=1." %
                 (name, home, reason))
        return "", home, nvcc, version, str(compiler)
    homes = ["/usr/local/cuda"]
    in_path = ctx.which("nvcc")
    if in_path:
        homes = [str(in_path.realpath.dirname.dirname)] + homes
    reasons = []
    for home in homes:
        reason, nvcc, version = _try(ctx, home, compiler)
        if not reason:
            return "", home, nvcc, version, str(compiler)
        if reason not in reasons:
            reasons.append(reason)
    return "; ".join(reasons), "", "", "", ""

def _cuda_configure_impl(ctx):
    reason, home, nvcc, version, compiler = _find(ctx)
    values = [
        ("HAVE_CUDA", not reason),
        ("WHY_NOT", reason),
        ("NVCC", nvcc),
        ("CUDA_VERSION", version),
        ("HOST_COMPILER", compiler),
    ]
    ctx.file("defs.bzl", "".join(["%s = %r\n" % value for value in values]))

    # The static runtime: a binary runs where there is a driver and no toolkit, and starts where there is neither.
    options = ["-L%s/lib64" % home, "-lcudart_static", "-ldl", "-lrt", "-pthread"] if home else []
    ctx.file("BUILD", """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "cudart",
    linkopts = %r,
)
""" % options)

cuda_configure = repository_rule(
    implementation = _cuda_configure_impl,
    environ = ["CUDA_HOME", "CUDA_PATH", "NO_CUDA", "PATH"],
    local = True,
    configure = True,
)
