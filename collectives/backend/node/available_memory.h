// How much memory this process may still use.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NODE_AVAILABLE_MEMORY_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NODE_AVAILABLE_MEMORY_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace shardproof {

// Bytes that can be touched without the kernel killing a process for it: the
// kernel's own estimate (MemAvailable), or what the memory limits of our
// control groups leave, if that is less. Takes about 50 us. The largest size_t
// where the system does not say.
size_t AvailableMemory();

// "64 B", "1.5 KiB", "3 MiB", "10.25 GiB".
std::string FormatBytes(size_t bytes);

// --- For tests -------------------------------------------------------------
// The value of `key` in the text of /proc/meminfo, in bytes.
std::optional<size_t> MeminfoField(std::string_view meminfo,
                                   std::string_view key);
// What the limits of the control group at `group` ("/a/b", as in
// /proc/self/cgroup) and of its parents leave, with version 2's files under
// `root`.
size_t ControlGroupHeadroom(const std::string& root, std::string group);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NODE_AVAILABLE_MEMORY_H_
