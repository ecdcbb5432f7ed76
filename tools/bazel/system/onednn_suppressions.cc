// What ThreadSanitizer is told of oneDNN, which Debian builds without it: what
// the library's own locks and atomics order is not seen, so everything that it
// does looks like a race. Nor is what it reads and writes of our buffers seen: a
// race about an operand of a product would not be found. Read by the sanitizer's
// run time where there is one, and by nobody else.
// NOLINTNEXTLINE: the name is the sanitizer's.
extern "C" const char* __tsan_default_suppressions() {
  return "called_from_lib:libdnnl.so\nrace:libdnnl.so\n";
}
