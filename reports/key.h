// What makes two records comparable: one line that names the case, the variant
// and everything that it ran with, but not the machine.
//
//     KeyOf(r)   // "collectives/all_reduce ring thread 4 dtype=f32 count=1024"
//
// Contract: KeyOf(a) == KeyOf(b) exactly when a and b measure the same thing.
// Memory and cadence are in the key where they are not the usual ones.
#ifndef SHARDPROOF_REPORTS_KEY_H_
#define SHARDPROOF_REPORTS_KEY_H_

#include <string>

#include "reports/record.h"

namespace shardproof {

std::string KeyOf(const Record& record);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_KEY_H_
