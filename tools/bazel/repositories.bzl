"""External repositories: all of them are on this machine, so nothing is downloaded."""

load("//tools/bazel:cuda_configure.bzl", "cuda_configure")
load("//tools/bazel:mpi_configure.bzl", "mpi_configure")

# What Bazel 4.2.3 would download for any C++ test, and what we put in its place. Debian's own rules_cc 0.0.4 does not
# load in 4.2.3 (`use_cpp_toolchain`).
_SHIMS = [
    "remote_coverage_tools",
    "rules_cc",
    "rules_java",
]

def shardproof_repositories():
    """Declares the shims where they are needed, and the repositories that describe this machine."""

    # Debian's build of Bazel reports an empty version or "no_version"; Bazel 5 and later bring what they need.
    major = (native.bazel_version or "4").split(".")[0]
    if not major.isdigit() or int(major) < 5:
        for name in _SHIMS:
            native.local_repository(name = name, path = "tools/bazel/shims/" + name)

    # For reports/html; only what embeds it fails where it is not installed (tools/bazel/packages.txt).
    native.new_local_repository(
        name = "chartjs",
        path = "/usr/share/javascript/chart.js",
        build_file_content = "exports_files([\"chart.min.js\"])",
    )
    cuda_configure(name = "cuda")
    mpi_configure(name = "mpi")
