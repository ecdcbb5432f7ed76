// One record out of several that were taken of the same instance at different
// times of a launch: its blocks.
//
// A neighbour on the machine that is busy for a second spoils all samples that
// are taken in that second, and with them their median. Blocks that are taken
// apart from each other, with everything else in between, are not all spoilt,
// and the median of their medians leaves up to half of them out. On a virtual
// machine of two cores, with other work coming and going, 50 ms in one piece
// differed from launch to launch by 15 percent and more (standard deviation).
#ifndef SHARDPROOF_TOOLS_CLI_BLOCKS_H_
#define SHARDPROOF_TOOLS_CLI_BLOCKS_H_

#include <vector>

#include "reports/record.h"

namespace shardproof {

// The record of the block with the middle median (of an even number: the lower
// one), with the samples of all blocks in the order of time, the quantiles of
// those, and an interval that spans the medians of all blocks too; its figures of
// errors are those of the first block, which is verified in full. The first that
// did not pass, if there is one. `blocks` must not be empty.
Record OfBlocks(const std::vector<Record>& blocks);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_BLOCKS_H_
