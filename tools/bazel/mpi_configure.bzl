"""A repository that describes the MPI of this machine: `@mpi//:mpi`, and `HAVE_MPI` in `@mpi//:defs.bzl`.

The compiler wrapper is asked where the headers are (`mpicxx -showme`, Open MPI), and the headers are linked into the
repository, because Bazel does not accept headers from folders that the compiler does not know. Without MPI, or with
NO_MPI=1, HAVE_MPI is False, `@mpi//:mpi` is an empty library, and tools/bazel/mpi.bzl picks stub files.
"""

def _ask(ctx, wrapper, question):
    result = ctx.execute([wrapper, "-showme:" + question])
    words = result.stdout.replace("\n", " ").split(" ") if result.return_code == 0 else []
    return [word for word in words if word]

def _find(ctx):
    """Returns (reason that MPI is absent, include folders, link options)."""
    if ctx.os.environ.get("NO_MPI", "") not in ("", "0"):
        return "NO_MPI is set", [], []
    wrapper = ctx.os.environ.get("MPICXX", "") or ctx.which("mpicxx")
    if not wrapper:
        return "mpicxx is not in PATH", [], []
    folders = [f for f in _ask(ctx, wrapper, "incdirs") if ctx.path(f).exists]
    if not [f for f in folders if ctx.path(f + "/mpi.h").exists]:
        return "%s names no folder with mpi.h; is it Open MPI?" % wrapper, [], []
    options = ["-L" + f for f in _ask(ctx, wrapper, "libdirs")]

    # The C++ bindings (-lmpi_cxx) were removed from the standard and are not used.
    options += ["-l" + f for f in _ask(ctx, wrapper, "libs") if f != "mpi_cxx"]
    return "", folders, options

def _mpi_configure_impl(ctx):
    reason, folders, options = _find(ctx)
    includes = []
    for i in range(len(folders)):
        ctx.symlink(folders[i], "include%d" % i)
        includes.append("include%d" % i)
    ctx.file("defs.bzl", "HAVE_MPI = %s\nWHY_NOT = %r\n" % (not reason, reason))
    ctx.file("BUILD", """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "mpi",
    hdrs = glob({patterns}, allow_empty = True),
    # MPICH's and Open MPI's C++ bindings are left out: they clash with current compilers.
    defines = ["OMPI_SKIP_MPICXX=1", "MPICH_SKIP_MPICXX=1"],
    includes = {includes},
    linkopts = {options},
)
""".format(
        patterns = repr([folder + "/**/*.h" for folder in includes]),
        includes = repr(includes),
        options = repr(options),
    ))

mpi_configure = repository_rule(
    implementation = _mpi_configure_impl,
    environ = ["MPICXX", "NO_MPI", "PATH"],
    local = True,
    configure = True,
)
