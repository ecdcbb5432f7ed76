// ZB automatic: a schedule with split backward passes, searched for, for given
// costs and the memory that a rank may hold.
//
// A heuristic fills in actions in rounds, a micro-batch each, by the times that
// they will have:
//
//   * first as many F as fit before the first I arrives, within the limit;
//   * then an F and an I in turn, rank by rank; a rank is at least one F ahead of
//     the next one as long as there are F;
//   * a W where it fits into the wait for the next F or I, where the wait, though
//     shorter, would be more than the worst rank has had, and where the limit asks
//     for it; the rest at the end.
//
// Three things that can be done or not: one more F than fits before the first I,
// leaving out the F of a round where it would delay the next rank's I, and W in
// waits that are too short for it. All eight combinations are tried. Best is the
// one whose ranks take least from their own first to their own last action, then
// the one that ends first.
//
// With the limit of 1F1B (p micro-batches, as ZB-H1) its bubble is at most that
// of ZB-H1, with 2 p - 1 at most that of ZB-H2, where F, I and W take about as long
// and messages no time. It is a heuristic: with slow messages some shapes lose to
// ZB-H2; and best is what the paper calls so, a rank's own time, for which all of
// it together may take longer than by hand where costs differ much.
//
// Source: Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section
// 3.1.
#ifndef SHARDPROOF_PIPELINE_ZB_AUTO_ZB_AUTO_H_
#define SHARDPROOF_PIPELINE_ZB_AUTO_ZB_AUTO_H_

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

StatusOr<Schedule> ZbAutoSchedule(const ScheduleShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_ZB_AUTO_ZB_AUTO_H_
