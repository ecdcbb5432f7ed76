#include "collectives/backend/nccl/nccl_bootstrap.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

// --- What a rank tells the others ---------------------------------------------

// One line: "error <sentence>", "ready <version>", "id <version> <256 digits>".
std::string ToText(const Status& status) {
  std::string text = fmt::format("error {}", status.message());
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string ToText(const nccl::UniqueId& id) {
  std::string digits;
  for (const char byte : id.internal) {
    digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return digits;
}

StatusOr<nccl::UniqueId> IdFromText(std::string_view digits) {
  nccl::UniqueId id = {};
  if (digits.size() != 2 * id.internal.size() ||
      digits.find_first_not_of("0123456789abcdef") != std::string_view::npos) {
    return Internal("\"{}\" is not an NCCL unique id", digits);
  }
  for (size_t i = 0; i < id.internal.size(); ++i) {
    id.internal[i] = static_cast<char>(
        std::stoi(std::string(digits.substr(2 * i, 2)), nullptr, 16));
  }
  return id;
}

using MakeId = std::function<StatusOr<nccl::UniqueId>()>;

std::string Introduction(int rank, const StatusOr<int>& version,
                         const MakeId& make_id) {
  if (!version.ok()) return ToText(version.status());
  const std::string text = NcclVersionText(*version);
  if (rank != 0) return fmt::format("ready {}", text);
  const StatusOr<nccl::UniqueId> id = make_id();
  if (!id.ok()) return ToText(id.status());
  return fmt::format("id {} {}", text, ToText(*id));
}

std::string Introduction(int rank, const NcclLibraryHere& library) {
  const auto version = [&]() -> StatusOr<int> {
    if (!library.ok()) return library.status();
    return (*library)->version();
  };
  return Introduction(rank, version(),
                      [&] { return (*library)->MakeUniqueId(); });
}

// The words of a line, the last of which may hold spaces.
std::vector<std::string> Words(const std::string& line, size_t most) {
  std::vector<std::string> words;
  size_t begin = 0;
  while (words.size() + 1 < most) {
    const size_t end = line.find(' ', begin);
    if (end == std::string::npos) break;
    words.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  words.push_back(line.substr(begin));
  return words;
}

// What the introductions of all ranks amount to; the same on every rank.
StatusOr<nccl::UniqueId> Conclude(const std::vector<std::string>& all) {
  for (size_t r = 0; r < all.size(); ++r) {
    const std::vector<std::string> words = Words(all[r], 2);
    if (words.front() == "error") {
      return Unavailable("rank {}: {}", r, words.back());
    }
  }
  const std::vector<std::string> first = Words(all.front(), 3);
  if (first.size() != 3 || first[0] != "id") {
    return Internal("rank 0 gave no NCCL unique id but \"{}\"", all.front());
  }
  for (size_t r = 1; r < all.size(); ++r) {
    const std::vector<std::string> words = Words(all[r], 2);
    if (words.back() != first[1]) {
      return Unavailable("rank {} has NCCL {}, and rank 0 has {}", r,
                         words.back(), first[1]);
    }
  }
  return IdFromText(first[2]);
}

// --- Files --------------------------------------------------------------------

// Whole or not at all: under another name first.
Status WriteWhole(const std::string& path, const std::string& text) {
  const std::string draft = fmt::format("{}.draft.{}", path, getpid());
  std::FILE* out = std::fopen(draft.c_str(), "w");
  bool written = out != nullptr;
  if (written) {
    written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
    written = std::fclose(out) == 0 && written;
  }
  if (!written || std::rename(draft.c_str(), path.c_str()) != 0) {
    const int error = errno;
    std::remove(draft.c_str());
    return Unavailable("the rendezvous file {} cannot be written: {}", path,
                       std::strerror(error));
  }
  return OkStatus();
}

// The lines of a file; none where it is not there.
std::vector<std::string> Lines(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

class Deadline {
 public:
  explicit Deadline(std::chrono::milliseconds timeout)
      : end_(std::chrono::steady_clock::now() + timeout) {}
  // False once the time is over; else after a millisecond.
  bool Wait() const {
    if (std::chrono::steady_clock::now() >= end_) return false;
    const timespec nap{.tv_sec = 0, .tv_nsec = 1'000'000};
    nanosleep(&nap, nullptr);
    return true;
  }

 private:
  std::chrono::steady_clock::time_point end_;
};

// The file of rank r > 0:                    The file of rank 0:
//     <nonce>                                    asks | go
//     <introduction>                             <introduction of each rank>
//     <nonce of rank 0 that was seen>            <nonce of each rank>
//
// Rank 0 says "go" when all have seen its nonce. The conclusion is drawn by each
// rank from the introductions, so an error of one is the answer of all.

struct Guest {
  std::string nonce, introduction, seen;
};

std::optional<Guest> ReadGuest(const std::string& path) {
  const std::vector<std::string> lines = Lines(path);
  if (lines.size() != 3) return std::nullopt;
  return Guest{.nonce = lines[0], .introduction = lines[1], .seen = lines[2]};
}

std::string MakeNonce() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

std::string GuestPath(const RendezvousFile& file, int rank) {
  return fmt::format("{}.{}", file.path, rank);
}

Status Publish(const RendezvousFile& file, std::string_view word,
               const std::vector<std::string>& introductions,
               const std::vector<std::string>& nonces) {
  return WriteWhole(file.path, fmt::format("{}\n{}\n{}\n", word,
                                           fmt::join(introductions, "\n"),
                                           fmt::join(nonces, "\n")));
}

// Rank 0.
StatusOr<nccl::UniqueId> Host(const RendezvousFile& file,
                              const std::string& introduction) {
  const auto ranks = static_cast<size_t>(file.ranks);
  std::vector<std::string> introductions(ranks);
  std::vector<std::string> nonces(ranks);
  introductions[0] = introduction;
  nonces[0] = MakeNonce();
  std::vector<std::string> published;  // Nonces.
  const auto saw = [&](const std::optional<Guest>& guest, size_t r) {
    return guest && !published.empty() && guest->nonce == published[r] &&
           guest->seen == nonces[0];
  };
  // At once, so that a folder that cannot be written is an error now, and what
  // another run left is gone.
  SP_RETURN_IF_ERROR(Publish(file, "asks", introductions, nonces));
  const Deadline deadline(file.timeout);
  do {
    bool all_came = true;
    bool all_saw = true;
    for (size_t r = 1; r < ranks; ++r) {
      const auto guest = ReadGuest(GuestPath(file, static_cast<int>(r)));
      all_came = all_came && guest.has_value();
      all_saw = all_saw && saw(guest, r);
      if (!guest) continue;
      introductions[r] = guest->introduction;
      nonces[r] = guest->nonce;
    }
    if (all_came && all_saw) {
      SP_RETURN_IF_ERROR(Publish(file, "go", introductions, nonces));
      return Conclude(introductions);
    }
    if (all_came && nonces != published) {
      SP_RETURN_IF_ERROR(Publish(file, "asks", introductions, nonces));
      published = nonces;
    }
  } while (deadline.Wait());

  std::vector<int> absent;
  for (int r = 1; r < file.ranks; ++r) {
    const auto guest = ReadGuest(GuestPath(file, r));
    if (published.empty() ? !guest : !saw(guest, static_cast<size_t>(r))) {
      absent.push_back(r);
    }
  }
  Status late = Timeout(
      "at the rendezvous file {}, {} of {} ranks did not "
      "come within {} ms: {}",
      file.path, absent.size(), file.ranks, file.timeout.count(),
      fmt::join(absent, ", "));
  // For those that did come and still wait.
  introductions[0] = ToText(late);
  SP_RETURN_IF_ERROR(Publish(file, "go", introductions, nonces));
  return late;
}

// A rank other than 0, whose own file is `mine`.
StatusOr<nccl::UniqueId> Join(const RendezvousFile& file,
                              const std::string& introduction,
                              const std::string& mine) {
  const std::string nonce = MakeNonce();
  const auto ranks = static_cast<size_t>(file.ranks);
  const auto write = [&](std::string_view host) {
    return WriteWhole(mine,
                      fmt::format("{}\n{}\n{}\n", nonce, introduction, host));
  };
  SP_RETURN_IF_ERROR(write(""));
  const Deadline deadline(file.timeout);
  bool another = false;
  bool seen = false;
  do {
    const std::vector<std::string> lines = Lines(file.path);
    const bool whole = lines.size() == 1 + 2 * ranks;
    const std::string answered =
        whole ? lines[1 + ranks + static_cast<size_t>(file.rank)] : "";
    if (answered != nonce) {
      // Or of this run, when rank 0 has not seen this rank's file yet.
      another = whole ? !answered.empty() : !lines.empty();
      continue;
    }
    if (lines[0] == "go") {
      const auto first = lines.begin() + 1;
      return Conclude({first, first + file.ranks});
    }
    if (!seen) SP_RETURN_IF_ERROR(write(lines[1 + ranks]));
    seen = true;
  } while (deadline.Wait());
  return Timeout("at the rendezvous file {}, rank {} waited {} ms for {}: {}",
                 file.path, file.rank, file.timeout.count(),
                 seen ? "the other ranks" : "rank 0",
                 seen      ? "they did not come"
                 : another ? "the file there is of another run"
                           : "it did not come");
}

}  // namespace

StatusOr<nccl::UniqueId> AgreeOnNcclId(const Communicator& comm,
                                       const NcclLibraryHere& library) {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      comm.ExchangeControl(Introduction(comm.rank(), library)));
  return Conclude(all);
}

StatusOr<nccl::UniqueId> AgreeOnNcclId(const Communicator& comm,
                                       const StatusOr<int>& version,
                                       const MakeId& make_id) {
  SP_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      comm.ExchangeControl(Introduction(comm.rank(), version, make_id)));
  return Conclude(all);
}

StatusOr<nccl::UniqueId> MeetAtFile(const RendezvousFile& file,
                                    const NcclLibraryHere& library) {
  if (file.path.empty() || file.ranks < 1 || file.rank < 0 ||
      file.rank >= file.ranks) {
    return InvalidArgument("a rendezvous at \"{}\" of rank {} among {}",
                           file.path, file.rank, file.ranks);
  }
  const std::string introduction = Introduction(file.rank, library);
  if (file.rank == 0) return Host(file, introduction);
  const std::string mine = GuestPath(file, file.rank);
  StatusOr<nccl::UniqueId> met = Join(file, introduction, mine);
  std::remove(mine.c_str());
  return met;
}

}  // namespace shardproof
