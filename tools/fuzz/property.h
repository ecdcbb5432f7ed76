// What fuzz targets are made of.
//
//     int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
//
// is called with any bytes, by libFuzzer or by replay_main.cc, and ends the
// process where a promise is broken.
#ifndef SHARDPROOF_TOOLS_FUZZ_PROPERTY_H_
#define SHARDPROOF_TOOLS_FUZZ_PROPERTY_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace shardproof {

inline std::string_view AsText(const uint8_t* data, size_t size) {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast)
  return {reinterpret_cast<const char*>(data), size};
}

inline void Expect(bool holds, std::string_view promise,
                   const std::string& seen = {}) {
  if (holds) return;
  std::fprintf(stderr, "broken: %.*s\n%s\n", static_cast<int>(promise.size()),
               promise.data(), seen.c_str());
  std::abort();
}

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_FUZZ_PROPERTY_H_
