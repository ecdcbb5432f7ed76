#include "layers/tensor_parallel/agree.h"

#include <string>
#include <vector>

namespace shardproof {

Status AgreeOnStatus(const Communicator& comm, const Status& mine) {
  // The code as one character before the message.
  std::string text;
  if (!mine.ok()) {
    text = static_cast<char>(mine.code());
    text += mine.message();
  }
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      comm.ExchangeControl(text));
  for (size_t r = 0; r < all.size(); ++r) {
    if (all[r].empty()) continue;
    return Status(static_cast<StatusCode>(all[r][0]),
                  fmt::format("rank {}: {}", r, all[r].substr(1)));
  }
  return OkStatus();
}

}  // namespace shardproof
