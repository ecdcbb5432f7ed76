"""counts.py, results.py and the measuring of pytorch.py, without torch: python3 yardsticks_test.py SHARDPROOF"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import counts  # noqa: E402
import operations  # noqa: E402
import pytorch  # noqa: E402
import results  # noqa: E402

SHARDPROOF = None


class FakeTimer:
    """Takes `us` for an operation, 10 percent more for every second sample, and counts."""

    def __init__(self, us):
        self.us, self.samples = us, 0

    def sample(self, run, operations_):
        for _ in range(operations_):
            run()
        self.samples += 1
        return self.us * (1.1 if self.samples % 2 == 0 else 1.0)


def options(**changed):
    out = argparse.Namespace(filter="", seconds=0.01, samples=20, progress=False)
    vars(out).update(changed)
    return out


def measured(work, us, wrong=""):
    return results.record(work, [us] * 10, 1, wrong=wrong)


class CountsTest(unittest.TestCase):
    def test_product(self):
        work = counts.product(8192, 8192, 8192)
        self.assertEqual(work.flops, 1099511627776)
        self.assertEqual(work.bytes, 3 * 2 * 8192**2)
        self.assertEqual(counts.product(2, 3, 5).flops, 60)
        self.assertEqual(counts.product(2, 3, 5).bytes, 2 * (10 + 15 + 6))

    def test_attention(self):
        # 4 B H S^2 D, as the figures that papers give.
        full = counts.attention(4, 32, 32, 4096, 128, False, "forward", "flash")
        self.assertEqual(full.flops, 4 * 4 * 32 * 4096**2 * 128)
        causal = counts.attention(4, 32, 32, 4096, 128, True, "forward", "flash")
        self.assertEqual(causal.flops, full.flops / 2)
        backward = counts.attention(4, 32, 32, 4096, 128, True, "backward", "flash")
        self.assertEqual(backward.flops, causal.flops * 2.5)
        # Shared keys are less to move, and no fewer products.
        shared = counts.attention(4, 32, 8, 4096, 128, False, "forward", "flash")
        self.assertEqual(shared.flops, full.flops)
        self.assertEqual(full.bytes, 4 * (4 * 32 * 4096 * 128) * 2)
        self.assertEqual(shared.bytes, full.bytes * 5 / 8)
        self.assertEqual(backward.bytes, 2 * causal.bytes)

    def test_bytes(self):
        self.assertEqual(counts.copy(10).bytes, 20)
        self.assertEqual(counts.rows("softmax", "forward", 3, 5, 2).bytes, 60)
        self.assertEqual(counts.rows("cross_entropy", "forward", 3, 5, 1, 24).bytes, 54)
        self.assertEqual(counts.embedding(3, 5, 100).bytes, 2 * 30 + 24)
        self.assertEqual(counts.adam(10).bytes, 280)
        self.assertEqual(counts.bus_bytes(100, 4), 150)

    def test_works(self):
        alone = list(counts.works(counts.FULL))
        self.assertEqual([work.name for work in alone[:2]], ["copy", "product"])
        together = list(counts.works(counts.FULL, ranks=2))
        self.assertEqual(
            {work.name for work in together} - {work.name for work in alone}, {"all_reduce"}
        )
        self.assertEqual({work.name for work in together}, operations.names())
        keys = [(work.name, json.dumps(work.params)) for work in together]
        self.assertEqual(len(keys), len(set(keys)))
        for work in together:
            self.assertGreater(work.bytes, 0, work)
            self.assertEqual(work.flops > 0, work.ceiling == "product", work)
        heads = {
            (w.params["sequence"], w.params["head_dim"], w.params["kv_heads"])
            for w in alone
            if w.name == "attention"
        }
        self.assertEqual(heads, {(s, d, k) for s in (4096, 16384) for d, k in ((64, 32), (128, 32), (128, 8))})


class ResultsTest(unittest.TestCase):
    def test_time(self):
        out = results.time_us([5.0, 1.0, 3.0, 2.0, 4.0], 7)
        self.assertEqual((out["median"], out["min"], out["max"]), (3.0, 1.0, 5.0))
        self.assertAlmostEqual(out["p10"], 1.4)
        self.assertAlmostEqual(out["p90"], 4.6)
        self.assertLessEqual(out["interval_low"], 3.0)
        self.assertGreaterEqual(out["interval_high"], 3.0)
        self.assertEqual((out["samples"], out["operations_per_sample"]), (5, 7))
        # In the order of time, and thinned.
        self.assertEqual(out["samples_us"], [5.0, 1.0, 3.0, 2.0, 4.0])
        self.assertLessEqual(len(results.time_us([1.0] * 1001, 1)["samples_us"]), 200)
        hundred = [float(i) for i in range(100)]
        self.assertEqual(results.median_interval(hundred), (40.0, 60.0))

    def test_rates(self):
        product = measured(counts.product(1000, 1000, 1000), 1000.0)
        self.assertAlmostEqual(product["gflops"], 2000)
        self.assertNotIn("algbw_gbps", product)
        copy = measured(counts.copy(10**9), 1000.0)
        self.assertAlmostEqual(copy["algbw_gbps"], 2000)
        reduced = results.record(counts.all_reduce(10**9), [1000.0] * 10, 1, ranks=4)
        self.assertAlmostEqual(reduced["algbw_gbps"], 1000)
        self.assertAlmostEqual(reduced["busbw_gbps"], 1500)
        self.assertEqual(reduced["ranks"], 4)

    def test_share_of_the_ceilings(self):
        records = [
            measured(counts.copy(10**9), 1000.0),
            measured(counts.product(1000, 1000, 1000), 1000.0),
            measured(counts.product(1000, 1000, 500), 1000.0),
            measured(counts.rows("softmax", "forward", 1000, 1000, 2), 4.0),
        ]
        found = results.ceilings(records)
        # The first product, which is the square one.
        self.assertAlmostEqual(found["gflops"], 2000)
        self.assertAlmostEqual(results.share(records[2], found), 0.5)
        self.assertAlmostEqual(results.share(records[3], found), 0.5)
        self.assertIsNone(results.share(records[3], {}))
        text = results.table(records)
        self.assertIn("1.00 TFLOP/s", text)
        self.assertIn("1000.0 GB/s", text)
        self.assertIn("50.0 %", text)

    def test_what_is_wrong_is_in_the_table(self):
        text = results.table(
            [
                measured(counts.copy(100), 1.0, wrong="the copy differs"),
                results.unsupported(counts.adam(10), "no fused Adam"),
            ]
        )
        self.assertIn("incorrect: the copy differs", text)
        self.assertIn("no fused Adam", text)


class MeasureTest(unittest.TestCase):
    def test_samples(self):
        calls = []
        samples, count = pytorch.measure(FakeTimer(10.0), lambda: calls.append(1), 0.02, 50)
        # A millisecond of operations that take 10 or 11 us.
        self.assertIn(count, (91, 100))
        self.assertEqual(len(samples), 20 if count == 100 else len(samples))
        self.assertGreaterEqual(len(samples), 10)
        self.assertEqual(set(samples), {10.0, 11.0})
        self.assertEqual(len(calls), 1 + 3 + count * (1 + len(samples)))

    def test_long_operations_are_alone(self):
        samples, count = pytorch.measure(FakeTimer(5000.0), lambda: None, 0.01, 50)
        self.assertEqual((len(samples), count), (10, 1))

    def test_ranks_agree(self):
        _, count = pytorch.measure(FakeTimer(10.0), lambda: None, 0.02, 50, agree=lambda value: max(value, 500.0))
        self.assertEqual(count, 2)

    def test_one_that_fails_stops_no_other(self):
        class Unsupported(Exception):
            pass

        def make(work):
            if work.name == "softmax":
                raise Unsupported("there is none\nsecond line")
            if work.name == "gelu":
                raise RuntimeError("broken")
            wrong = "one is off" if work.name == "adam" else ""
            return operations.Operation(lambda: None, lambda: wrong)

        records = pytorch.measure_all(counts.works(counts.SMALL), make, FakeTimer(10.0), options())
        verdicts = {}
        for one in records:
            verdicts.setdefault(one["case"].split("/")[1], set()).add((one["verdict"], one["reason"]))
        self.assertEqual(verdicts["softmax"], {("unsupported", "there is none")})
        self.assertEqual(verdicts["gelu"], {("failed", "broken")})
        self.assertEqual(verdicts["adam"], {("incorrect", "one is off")})
        self.assertEqual(verdicts["copy"], {("passed", "")})
        self.assertEqual(len(records), len(list(counts.works(counts.SMALL))))

    def test_filter(self):
        make = lambda work: operations.Operation(lambda: None, lambda: "")
        records = pytorch.measure_all(
            counts.works(counts.SMALL), make, FakeTimer(10.0), options(filter="norm$")
        )
        self.assertEqual({one["case"] for one in records}, {"yardstick/layer_norm", "yardstick/rms_norm"})


class FileTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def write(self, name, us):
        path = os.path.join(self.folder.name, name)
        make = lambda work: operations.Operation(lambda: None, lambda: "")
        records = pytorch.measure_all(counts.works(counts.SMALL, ranks=2), make, FakeTimer(us), options(), ranks=2)
        records.append(results.unsupported(counts.adam(7), "none here"))
        gpus = [{"name": "NVIDIA H200", "memory_bytes": 2**37}]
        where = results.environment(gpus, {"torch": "2.9.0", "driver": "580.1"}, "cuda")
        results.write(path, "pytorch.py", "2026-12-01T10:00:00Z", "2026-12-01T10:01:00Z", where, records)
        return path

    def shardproof(self, *arguments):
        if SHARDPROOF is None:
            self.skipTest("no shardproof was named")
        done = subprocess.run([SHARDPROOF, *arguments], capture_output=True, text=True, check=False)
        self.assertIn(done.returncode, (0, 3), done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_report_reads_it(self):
        path = self.write("a.json", 10.0)
        page, csv = (os.path.join(self.folder.name, name) for name in ("a.html", "a.csv"))
        self.shardproof("report", path, "--no-history", "-o", page, "--csv", csv)
        with open(csv, encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(text.count(",yardstick/attention,"), 24)
        self.assertIn("yardstick/all_reduce", text)
        with open(page, encoding="utf-8") as file:
            page_text = file.read()
        self.assertIn("yardstick/product", page_text)
        self.assertIn("NVIDIA H200", page_text)

    def test_compare_sets_two_beside_each_other(self):
        text = self.shardproof("compare", self.write("a.json", 10.0), self.write("b.json", 20.0))
        self.assertIn("yardstick/softmax", text)

    def test_every_member_is_one_of_the_schema(self):
        with open(self.write("a.json", 10.0), encoding="utf-8") as file:
            text = file.read()
        self.assertTrue(text.startswith('{"schema":1,'))
        for one in json.loads(text)["records"]:
            self.assertLessEqual({"case", "variant", "backend", "ranks", "verdict"}, one.keys())
            self.assertEqual(one["variant"], "pytorch")
            self.assertTrue(one["case"].startswith("yardstick/"))


class ProgramTest(unittest.TestCase):
    def run_without_torch(self, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "torch.py"), "w", encoding="utf-8") as file:
                file.write("raise ImportError('planted')\n")
            return subprocess.run(
                [sys.executable, pytorch.__file__, *arguments],
                env={**os.environ, "PYTHONPATH": folder},
                capture_output=True,
                text=True,
                check=False,
            )

    def test_says_that_there_is_no_torch(self):
        done = self.run_without_torch("--device", "cpu")
        self.assertEqual(done.returncode, 3)
        self.assertEqual(done.stderr, "pytorch.py: there is no torch: planted; pip install torch\n")
        self.assertEqual(done.stdout, "")

    def test_says_that_there_is_no_gpu(self):
        # A torch that has nothing but the answer to whether there is a GPU.
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "torch.py"), "w", encoding="utf-8") as file:
                file.write("class cuda:\n    is_available = staticmethod(lambda: False)\n")
            done = subprocess.run(
                [sys.executable, pytorch.__file__],
                env={**os.environ, "PYTHONPATH": folder},
                capture_output=True,
                text=True,
                check=False,
            )
        self.assertEqual(done.returncode, 3)
        self.assertIn("torch sees no GPU", done.stderr)

    def test_refuses_unknown_flags(self):
        self.assertEqual(self.run_without_torch("--nonsense").returncode, 2)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        SHARDPROOF = os.path.abspath(sys.argv.pop(1))
    unittest.main()
