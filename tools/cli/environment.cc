#include "tools/cli/environment.h"

#include <dlfcn.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <hwloc.h>
#include <link.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "collectives/backend/mpi/mpi_world.h"
#include "collectives/backend/nccl/nccl_library.h"

namespace shardproof {
namespace {

namespace fs = std::filesystem;

constexpr std::array kVariables = {
    "NCCL_ALGO",
    "NCCL_BUFFSIZE",
    "NCCL_COLLNET_ENABLE",
    "NCCL_CROSS_NIC",
    "NCCL_CUMEM_ENABLE",
    "NCCL_IB_DISABLE",
    "NCCL_IB_GID_INDEX",
    "NCCL_IB_HCA",
    "NCCL_IB_QPS_PER_CONNECTION",
    "NCCL_LAUNCH_MODE",
    "NCCL_MAX_CTAS",
    "NCCL_MAX_NCHANNELS",
    "NCCL_MIN_CTAS",
    "NCCL_MIN_NCHANNELS",
    "NCCL_NET",
    "NCCL_NET_GDR_LEVEL",
    "NCCL_NTHREADS",
    "NCCL_NVLS_ENABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_P2P_LEVEL",
    "NCCL_PROTO",
    "NCCL_SHM_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "NCCL_SOCKET_NTHREADS",
    "NCCL_NSOCKS_PERTHREAD",
    "NCCL_TOPO_FILE",
    "NCCL_TUNER_PLUGIN",
    "OMPI_MCA_btl",
    "OMPI_MCA_btl_tcp_if_include",
    "OMPI_MCA_btl_vader_eager_limit",
    "OMPI_MCA_btl_vader_single_copy_mechanism",
    "OMPI_MCA_coll",
    "OMPI_MCA_coll_hcoll_enable",
    "OMPI_MCA_coll_tuned_allgather_algorithm",
    "OMPI_MCA_coll_tuned_allreduce_algorithm",
    "OMPI_MCA_coll_tuned_alltoall_algorithm",
    "OMPI_MCA_coll_tuned_bcast_algorithm",
    "OMPI_MCA_coll_tuned_dynamic_rules_filename",
    "OMPI_MCA_coll_tuned_reduce_scatter_algorithm",
    "OMPI_MCA_coll_tuned_use_dynamic_rules",
    "OMPI_MCA_hwloc_base_binding_policy",
    "OMPI_MCA_mpi_yield_when_idle",
    "OMPI_MCA_mtl",
    "OMPI_MCA_osc",
    "OMPI_MCA_pml",
    "OMPI_MCA_rmaps_base_mapping_policy",
    "UCX_NET_DEVICES",
    "UCX_TLS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS"};

class Fnv {
 public:
  void Add(uint64_t word) { hash_ = (hash_ ^ word) * 0x100000001b3u; }
  std::string Text() const { return fmt::format("{:016x}", hash_); }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

std::string FirstLine(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return std::string(
      text.substr(begin, text.find_last_not_of(" \t") + 1 - begin));
}

std::vector<fs::path> Entries(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    entries.push_back(it->path());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::string Governor() {
  std::set<std::string> governors;
  for (const fs::path& cpu : Entries("/sys/devices/system/cpu")) {
    std::string governor = FirstLine(cpu / "cpufreq" / "scaling_governor");
    if (!governor.empty()) governors.insert(std::move(governor));
  }
  return fmt::format("{}", fmt::join(governors, ", "));
}

// What NVIDIA's driver says of itself, with or without CUDA.
std::vector<Gpu> Gpus() {
  std::vector<Gpu> gpus;
  for (const fs::path& gpu : Entries("/proc/driver/nvidia/gpus")) {
    std::ifstream in(gpu / "information");
    for (std::string line; std::getline(in, line);) {
      constexpr std::string_view kModel = "Model:";
      if (line.rfind(kModel, 0) != 0) continue;
      gpus.push_back({.name = Trimmed(line.substr(kModel.size()))});
    }
  }
  return gpus;
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue ...": the
// first word that begins with a digit and has a point.
std::string Driver() {
  const std::string line = FirstLine("/proc/driver/nvidia/version");
  for (size_t i = 0; i < line.size();) {
    const size_t begin = line.find_first_not_of(' ', i);
    if (begin == std::string::npos) break;
    i = std::min(line.find(' ', begin), line.size());
    const std::string word = line.substr(begin, i - begin);
    if (std::isdigit(static_cast<unsigned char>(word[0])) != 0 &&
        word.find('.') != std::string::npos) {
      return word;
    }
  }
  return {};
}

// The version of the library that is loaded already, and the hash of its file:
// a library with a patch has the same version.
std::string LoadedNccl() {
  std::vector<std::string> objects;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* list) {
        if (info->dlpi_name != nullptr && info->dlpi_name[0] == '/') {
          static_cast<std::vector<std::string>*>(list)->emplace_back(
              info->dlpi_name);
        }
        return 0;
      },
      &objects);
  for (const std::string& object : objects) {
    void* handle = dlopen(object.c_str(), RTLD_NOLOAD | RTLD_LAZY);
    if (handle == nullptr) continue;
    void* symbol = dlsym(handle, "ncclGetVersion");
    dlclose(handle);  // It stays: this only counts.
    // The handle finds what an object depends on, too.
    Dl_info where = {};
    if (symbol == nullptr || dladdr(symbol, &where) == 0 ||
        object != where.dli_fname) {
      continue;
    }
    int version = 0;
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast)
    if (reinterpret_cast<int (*)(int*)>(symbol)(&version) != 0) continue;
    return fmt::format("NCCL {}, file {}", NcclVersionText(version),
                       HashFile(object));
  }
  return {};
}

std::string Compiler() {
#ifdef __clang__
  return fmt::format("clang {}.{}.{}", __clang_major__, __clang_minor__,
                     __clang_patchlevel__);
#else
  return fmt::format("gcc {}.{}.{}", __GNUC__, __GNUC_MINOR__,
                     __GNUC_PATCHLEVEL__);
#endif
}

void AddObject(const hwloc_obj* object, Fnv& hash) {
  hash.Add(static_cast<uint64_t>(object->type));
  if (hwloc_obj_type_is_cache(object->type) != 0) {
    hash.Add(object->attr->cache.size);
  }
  hash.Add(object->arity);
  hash.Add(object->memory_arity);
  for (const hwloc_obj* child = object->first_child; child != nullptr;
       child = child->next_sibling) {
    AddObject(child, hash);
  }
}

bool HasNoCase(std::string_view text, std::string_view word) {
  return std::search(text.begin(), text.end(), word.begin(), word.end(),
                     [](char a, char b) {
                       return std::tolower(static_cast<unsigned char>(a)) == b;
                     }) != text.end();
}

}  // namespace

bool LooksSecret(std::string_view value) {
  for (const std::string_view word :
       {"token", "secret", "password", "passwd", "apikey", "api_key"}) {
    if (HasNoCase(value, word)) return true;
  }
  const size_t host = value.find("://");
  if (host != std::string_view::npos &&
      value.find('@', host) != std::string_view::npos) {
    return true;
  }
  int run = 0, digits = 0, letters = 0;
  for (const char c : value) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u) == 0 && c != '+' && c != '=' && c != '-' && c != '_') {
      run = digits = letters = 0;
      continue;
    }
    ++run;
    digits += static_cast<int>(std::isdigit(u) != 0);
    letters += static_cast<int>(std::isalpha(u) != 0);
    if (run >= 32 && digits > 0 && letters > 0) return true;
  }
  return false;
}

std::vector<std::pair<std::string, std::string>> AllowedVariables(
    const std::function<const char*(const char*)>& get) {
  std::vector<std::pair<std::string, std::string>> variables;
  for (const char* name : kVariables) {
    const char* value = get(name);
    if (value == nullptr) continue;
    variables.emplace_back(name, LooksSecret(value) ? "(withheld)" : value);
  }
  return variables;
}

std::string HashFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in.is_open()) return {};
  Fnv hash;
  std::vector<char> block(size_t{1} << 20);
  while (in.good()) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    const auto size = static_cast<size_t>(in.gcount());
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, block.data() + i, std::min(sizeof(word), size - i));
      hash.Add(word);
    }
    // The length of the last block: zeros at the end are not nothing.
    if (size < block.size()) hash.Add(size);
  }
  return in.bad() ? "" : hash.Text();
}

std::string TopologyHash() {
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) return {};
  std::string text;
  if (hwloc_topology_load(topology) == 0) {
    Fnv hash;
    AddObject(hwloc_get_root_obj(topology), hash);
    text = hash.Text();
  }
  hwloc_topology_destroy(topology);
  return text;
}

std::string CpuName() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) == 0) {
      const size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  }
  return "unknown";
}

std::string UtcNow() {
  const auto now = std::chrono::time_point_cast<std::chrono::seconds>(
      std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(now)));
}

Fingerprint CollectFingerprint(const std::string& label) {
  utsname name = {};
  uname(&name);
  const auto mpi = MpiVersion();
  return {
      .host = name.nodename,
      .cpu = CpuName(),
      .kernel = fmt::format("{} {}", name.sysname, name.release),
      .cores = static_cast<int>(std::thread::hardware_concurrency()),
      .memory_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE),
      .topology = TopologyHash(),
      .governor = Governor(),
      .gpus = Gpus(),
      .driver = Driver(),
      .nccl = LoadedNccl(),
      // Open MPI counts the zero at the end.
      .mpi = mpi.ok() ? mpi->substr(0, mpi->find('\0')) : "",
      .compiler = Compiler(),
      .binary = HashFile("/proc/self/exe"),
      .label = label,
      .variables = AllowedVariables(
          [](const char* variable) { return std::getenv(variable); })};
}

nlohmann::ordered_json Environment(const std::string& label) {
  return ToJson(CollectFingerprint(label));
}

}  // namespace shardproof
