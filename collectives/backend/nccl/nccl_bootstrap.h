// How the ranks of an NCCL communicator find one another: rank 0 makes the
// unique id, and every rank gets it.
//
//   in one process    NcclLibrary::MakeUniqueId once, and a copy to every thread
//   with a communicator of the same ranks (threads, MPI)
//       SP_ASSIGN_OR_RETURN(id, AgreeOnNcclId(comm, NcclLibrary::Load(path)));
//   with nothing but a file system that all ranks see
//       SP_ASSIGN_OR_RETURN(id, MeetAtFile({.path = "/home/me/job7",
//                                           .rank = r, .ranks = p},
//                                          NcclLibrary::Load(path)));
//
// Both take the library as it was found, or why it was not: what is wrong on one
// rank becomes the answer of all.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BOOTSTRAP_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BOOTSTRAP_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "collectives/backend/nccl/nccl_library.h"
#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

// The library of this rank, or its error.
using NcclLibraryHere = StatusOr<std::shared_ptr<const NcclLibrary>>;

// Collective over `comm`. kUnavailable on all ranks, naming the first rank that
// has no library or one of another version than rank 0, or where rank 0 cannot
// make an id.
StatusOr<nccl::UniqueId> AgreeOnNcclId(const Communicator& comm,
                                       const NcclLibraryHere& library);

// The same where the library is loaded elsewhere, in a process of this rank: its
// `version`, or why there is none. `make_id` is called on rank 0 alone, and only
// where there is a version.
StatusOr<nccl::UniqueId> AgreeOnNcclId(
    const Communicator& comm, const StatusOr<int>& version,
    const std::function<StatusOr<nccl::UniqueId>()>& make_id);

struct RendezvousFile {
  // Rank 0 writes this file and rank r the file <path>.<r>, each first under
  // another name and then renamed. Those of the ranks are gone afterwards; that
  // of rank 0 stays.
  std::string path;
  int rank = 0;
  int ranks = 1;
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

// As AgreeOnNcclId, in three steps: every rank writes a nonce, a random number;
// rank 0 answers with the id, a nonce of its own and those that it answers to;
// every rank repeats the nonce of rank 0, and goes on when rank 0 has read that
// from all.
//
// So what an earlier run left behind does no harm: neither side takes anything
// that does not hold the nonce which it made a moment ago, and rank 0 answers
// again when a nonce is replaced. A path may be used again, but not by two runs
// at once.
//
// kTimeout names who has not come. kUnavailable where the file cannot be
// written. A rank whose peers end without a word waits until the timeout.
StatusOr<nccl::UniqueId> MeetAtFile(const RendezvousFile& file,
                                    const NcclLibraryHere& library);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_BOOTSTRAP_H_
