#include "collectives/backend/node/board.h"

#include <string_view>
#include <utility>

namespace shardproof {

size_t NodeBoard::BytesNeeded(int ranks) {
  return static_cast<size_t>(ranks) * 2 * (sizeof(Line) + kEagerBytes);
}

NodeBoard::NodeBoard(std::byte* control, int rank, int size,
                     std::vector<AddressWindow> windows, const Waiting& waiting)
    // Zero bytes are a valid Line: its atomics are lock-free integers. Ranks of
    // other processes have it in use already, so nothing is constructed here.
    : lines_(reinterpret_cast<Line*>(control)),
      slots_(control + 2 * static_cast<size_t>(size) * sizeof(Line)),
      rank_(rank),
      size_(size),
      waiting_(waiting),
      windows_(std::move(windows)) {}

Status NodeBoard::Disagreement(int peer, Kind mine) const {
  constexpr std::string_view kNames[] = {"a barrier or the end of a meeting",
                                         "a meeting", "an eager meeting"};
  return Internal(
      "the ranks are not in the same operation: rank {} is in {}, rank {} in "
      "{}",
      rank_, kNames[mine], peer, kNames[LineOf(peer, epoch_).kind % 3]);
}

}  // namespace shardproof
