// Drawings show what was simulated.
#include "pipeline/drawing.h"

#include <gtest/gtest.h>

#include <string>

#include "pipeline/registry.h"
#include "pipeline/simulator.h"

namespace shardproof {
namespace {

TEST(Drawing, IsWhatIsDrawn) {
  const Schedule s = *BuildSchedule("one_f_one_b", {2, 2, 1});
  const auto simulated = Simulate(s, {});
  ASSERT_TRUE(simulated.ok());
  EXPECT_EQ(DrawText(s, *simulated),
            "rank 0   F0 F1 .  .  B0    .  B1\n"
            "rank 1   .  F0 B0    F1 B1    .  .\n");
  Schedule pair = *BuildSchedule("eager_1f1b", {2, 3, 1});
  pair.actions[0][2].with_next = true;
  EXPECT_EQ(DrawText(pair, *Simulate(pair, {})),
            "rank 0   F0  F1  F2& .   B0      .   B1      .   B2\n"
            "rank 1   .   F0  B0      F1  B1      F2  B2      .   .\n");
  const auto at_once = Simulate(pair, {.overlapped = 2});
  EXPECT_EQ(DrawText(pair, *at_once),
            "rank 0   F0 F1 .  .  F2&B0 .  B1    .  B2\n"
            "rank 1   .  F0 B0    F1 B1    F2 B2    .  .\n");
  // One above the other.
  for (const char* y : {"36.0", "49.0"}) {
    const std::string box =
        "y=\"" + std::string(y) + "\" width=\"60.00\" height=\"13.0\"";
    EXPECT_NE(DrawSvg(pair, *at_once).find(box), std::string::npos) << box;
  }
  const std::string svg = DrawSvg(s, *simulated);
  EXPECT_EQ(svg.find("height=\"13.0\""), std::string::npos);
  size_t boxes = 0;
  for (size_t at = svg.find("<title>"); at != std::string::npos;
       at = svg.find("<title>", at + 1)) {
    ++boxes;
  }
  EXPECT_EQ(boxes, 8U);
  Schedule hostile = s;
  hostile.name = "<script>\"&";
  EXPECT_NE(DrawSvg(hostile, *simulated).find("&lt;script&gt;&quot;&amp;:"),
            std::string::npos);
}

}  // namespace
}  // namespace shardproof
