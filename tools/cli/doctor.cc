// shardproof doctor: what is usable here, and why the rest is not.
// clang-format off: before any header of Highway.
#include "collectives/kernels/targets.h"
// clang-format on
#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hwloc.h>
#include <hwy/highway.h>
#include <hwy/targets.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <CLI/Version.hpp>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/mpi/mpi_world.h"
#include "collectives/backend/nccl/nccl_library.h"
#include "collectives/backend/node/available_memory.h"
#include "layers/kernels/cuda/blas/cublaslt_library.h"
#include "tools/cli/commands.h"
#include "tools/cli/environment.h"
#include "tools/cli/gpu_world.h"

namespace shardproof {
namespace {

void Section(std::string_view title) { fmt::print("{}\n", title); }
void Line(std::string_view name, std::string_view text) {
  fmt::print("  {:<16} {}\n", name, text);
}

// The first line, or nothing.
std::string FirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// "[always] madvise never" -> "always".
std::string Chosen(const std::string& path) {
  const std::string line = FirstLine(path);
  const size_t begin = line.find('['), end = line.find(']');
  if (begin == std::string::npos || end == std::string::npos) return {};
  return line.substr(begin + 1, end - begin - 1);
}

// Where the shell would find `program`; empty: nowhere.
std::string FindProgram(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(':'), rest.size());
    const std::string file = fmt::format("{}/{}", rest.substr(0, end), program);
    if (access(file.c_str(), X_OK) == 0) return file;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

using FoundNccl = StatusOr<std::shared_ptr<const NcclLibrary>>;
using FoundGpus = StatusOr<std::shared_ptr<cuda::GpuSystem>>;

void ShowGpus(const FoundGpus& found) {
  if (!found.ok()) {
    Line("cuda", fmt::format("not usable: {}", found.status().message()));
    return;
  }
  cuda::GpuSystem& gpus = **found;
  Line("cuda", fmt::format("usable: {}", gpus.Describe()));
  for (int i = 0; i < gpus.count(); ++i) {
    const cuda::GpuInfo& info = gpus.gpu(i).info();
    std::string lacks;
    if (!info.cooperative_launch) lacks += "; no cooperative launch";
    if (!info.managed_memory) lacks += "; no memory shared with the host";
    if (info.major < 8) lacks += "; too old for the kernels, which need 8.0";
    Line("", fmt::format("{}: compute capability {}.{}, {}, {} "
                         "multiprocessors{}",
                         cuda::NameOf(gpus, i), info.major, info.minor,
                         FormatBytes(info.memory_bytes), info.multiprocessors,
                         lacks));
  }
}

// Whether the library that was found runs on the GPUs that were found.
std::string Together(const NcclLibrary& library, const FoundGpus& gpus) {
  if (library.emulated()) {
    return gpus.ok() && (*gpus)->emulated()
               ? "usable on emulated GPUs"
               : "for emulated GPUs only: --emulate-gpus";
  }
  if (!gpus.ok()) return "no GPU: cannot run";
  return (*gpus)->emulated() ? "for GPUs only" : "usable";
}

// Who would multiply on GPUs.
void ShowCublasLt(const Options& options) {
  const auto found = CublasLtLibrary::Load(options.cublaslt_library);
  Line("cuBLASLt",
       found.ok() ? (*found)->Describe()
                  : fmt::format("not usable: {}", found.status().message()));
}

// What would be put under test, and with what.
void ShowNccl(const FoundNccl& found, const FoundGpus& gpus) {
  if (!found.ok()) {
    Line("nccl", fmt::format("not usable: {}", found.status().message()));
    return;
  }
  const NcclLibrary& library = **found;
  Line("nccl",
       fmt::format("{}; {}", library.Describe(), Together(library, gpus)));
  std::vector<std::string> has, lacks;
  for (const NcclCapability& one : library.Capabilities()) {
    if (one.present) {
      has.emplace_back(one.name);
    } else {
      lacks.push_back(
          fmt::format("{} ({})", one.name, NcclVersionText(one.since)));
    }
  }
  if (!has.empty()) Line("", fmt::format("has: {}", fmt::join(has, ", ")));
  if (!lacks.empty()) {
    Line("", fmt::format("lacks: {}", fmt::join(lacks, ", ")));
  }
  Line("", fmt::format(
               "several ranks on one GPU: {}in a process each, by sockets of "
               "this machine: for correctness alone",
               library.Has(NcclFeature::kSeveralRanksOnGpu)
                   ? "with NCCL_MULTI_RANK_GPU_ENABLE=1 the library's, else "
                   : ""));
}

void Backends(const FoundGpus& gpus, const FoundNccl& nccl) {
  Section("backends");
  Line("thread", "usable: ranks as threads of this process");
  const auto mpi = MpiVersion();
  const std::string mpirun = FindProgram("mpirun");
  if (!mpi.ok()) {
    Line("mpi", fmt::format("not usable: {}", mpi.status().message()));
  } else if (mpirun.empty() && FindProgram("srun").empty()) {
    Line("mpi", fmt::format("{}, but neither mpirun nor srun is in PATH: "
                            "install openmpi-bin",
                            *mpi));
  } else {
    Line("mpi", fmt::format("usable: {}", *mpi));
  }
  ShowGpus(gpus);
  ShowNccl(nccl, gpus);
  Line("launcher",
       StartedByMpiLauncher()
           ? "this process was started by one"
           : fmt::format(
                 "mpirun: {}; srun: {}", mpirun.empty() ? "none" : mpirun,
                 FindProgram("srun").empty() ? "none" : FindProgram("srun")));
  if (mpi.ok() && geteuid() == 0 &&
      std::getenv("OMPI_ALLOW_RUN_AS_ROOT") == nullptr) {
    Line("", "as root, Open MPI's mpirun wants --allow-run-as-root");
  }
}

struct Counts {
  int cores = 0, packages = 0, numa = 0;
  size_t last_level_cache = 0;
};

Counts CountsOf() {
  Counts counts;
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) return counts;
  if (hwloc_topology_load(topology) == 0) {
    const auto number = [&](hwloc_obj_type_t type) {
      return std::max(0, hwloc_get_nbobjs_by_type(topology, type));
    };
    counts = {.cores = number(HWLOC_OBJ_CORE),
              .packages = number(HWLOC_OBJ_PACKAGE),
              .numa = number(HWLOC_OBJ_NUMANODE)};
    if (number(HWLOC_OBJ_L3CACHE) > 0) {
      counts.last_level_cache =
          hwloc_get_obj_by_type(topology, HWLOC_OBJ_L3CACHE, 0)
              ->attr->cache.size;
    }
  }
  hwloc_topology_destroy(topology);
  return counts;
}

void Processor() {
  Section("processor");
  Line("model", CpuName());
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const int usable = sched_getaffinity(0, sizeof(allowed), &allowed) == 0
                         ? CPU_COUNT(&allowed)
                         : 0;
  const Counts counts = CountsOf();
  Line("cores", fmt::format("{} in {} package{} and {} NUMA node{}; this "
                            "process may use {} processor{}",
                            counts.cores, counts.packages,
                            counts.packages == 1 ? "" : "s", counts.numa,
                            counts.numa == 1 ? "" : "s", usable,
                            usable == 1 ? "" : "s"));
  Line("", fmt::format("up to {} ranks run at once: more share processors, and "
                       "their times say little",
                       usable));
  if (counts.last_level_cache > 0) {
    Line("L3 cache", FormatBytes(counts.last_level_cache));
  }
  std::vector<std::string> targets;
  const int64_t here = hwy::SupportedTargets() & ~HWY_DISABLED_TARGETS;
  for (int bit = 0; bit < 62; ++bit) {
    const int64_t target = int64_t{1} << bit;
    if ((here & HWY_TARGETS & target) != 0) {
      targets.emplace_back(hwy::TargetName(target));
    }
  }
  Line("SIMD", fmt::format("{} (the first is used)", fmt::join(targets, ", ")));
}

void ShowMemory() {
  Section("memory");
  Line("available", FormatBytes(AvailableMemory()));
  struct statvfs shm = {};
  if (statvfs("/dev/shm", &shm) == 0) {
    const size_t free = shm.f_bavail * shm.f_frsize;
    Line("/dev/shm", fmt::format("{} free: {}", FormatBytes(free),
                                 "what MPI itself shares between ranks"));
  } else {
    Line("/dev/shm", "not there: Open MPI will be slow or fail");
  }
  const std::string thp = "/sys/kernel/mm/transparent_hugepage/";
  const std::string own = Chosen(thp + "enabled");
  const std::string shared = Chosen(thp + "shmem_enabled");
  Line("huge pages",
       own.empty() ? "the kernel has no transparent huge pages"
                   : fmt::format("{} for memory of one process (thread)", own));
  if (!shared.empty()) {
    const bool usable = shared != "never" && shared != "deny";
    Line("", fmt::format("{} for shared memory (mpi){}", shared,
                         usable ? ""
                                : ": above 16 MiB copies are slower; "
                                  "`echo advise > " +
                                      thp + "shmem_enabled` as root helps"));
  }
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    if (line.rfind("HugePages_Total:", 0) == 0) {
      const size_t digit = line.find_first_of("0123456789");
      Line("",
           fmt::format("{} reserved (hugetlbfs; not needed)",
                       digit == std::string::npos ? "?" : line.substr(digit)));
    }
  }
}

// Of libraries that only some builds link.
template <class Function>
Function* Symbol(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

void Libraries() {
  Section("libraries");
  Line("fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000,
                          FMT_VERSION / 100 % 100, FMT_VERSION % 100));
  Line("Highway", fmt::format("{}.{}.{}", HWY_MAJOR, HWY_MINOR, HWY_PATCH));
  Line("hwloc",
       fmt::format("{}.{}.{}", HWLOC_API_VERSION >> 16,
                   HWLOC_API_VERSION >> 8 & 0xff, HWLOC_API_VERSION & 0xff));
  Line("CLI11", CLI11_VERSION);
  Line("nlohmann-json",
       fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR,
                   NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH));
  struct DnnlVersion {
    int major, minor, patch;
  };
  if (auto* version = Symbol<const DnnlVersion*()>("dnnl_version")) {
    const DnnlVersion& v = *version();
    Line("oneDNN", fmt::format("{}.{}.{}", v.major, v.minor, v.patch));
  } else {
    Line("oneDNN", "not linked: layers have no fast kernels");
  }
  if (auto* config = Symbol<char*()>("openblas_get_config")) {
    Line("OpenBLAS", config());
  } else {
    Line("OpenBLAS", "not linked: no f64 layers");
  }
}

}  // namespace

ExitCode RunDoctor(const Options& options) {
  const FoundNccl nccl = NcclLibrary::Load(options.nccl_library);
  // A library that was asked for is not a finding but the question.
  if (!nccl.ok() && !options.nccl_library.empty()) return Refuse(nccl.status());
  const FoundGpus gpus = OpenGpus(options);
  if (gpus.status().code() == StatusCode::kInvalidArgument) {
    return Refuse(gpus.status());
  }
  Backends(gpus, nccl);
  ShowCublasLt(options);
  Processor();
  ShowMemory();
  Libraries();
  return options.require_gpu && !gpus.ok() ? Refuse(gpus.status()) : kExitPass;
}

}  // namespace shardproof
