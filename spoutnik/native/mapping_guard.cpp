// Mapped files that another program may cut off: reading behind the end of such a file raises SIGBUS, which would end the
// process. For the mappings guarded here the rest becomes zeros and the fault is counted; whoever uses the mapping looks at
// the count before trusting what was computed. All other faults go to the handler that was there before.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace {

struct Mapping {
    std::atomic<uintptr_t> begin{0}, end{0};
    std::atomic<int64_t> faults{0};
    bool taken = false;
};

constexpr int64_t MAPPINGS = 1024;
Mapping mappings[MAPPINGS];
std::mutex mutex;  // of `taken` and of the installation
struct sigaction previous;
uintptr_t page_bytes;

// Calls nothing but mmap, sigaction and raise: it may interrupt any code.
void on_bus_error(int signal, siginfo_t* info, void* context) {
    const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
    for (auto& mapping : mappings) {
        const uintptr_t end = mapping.end.load();
        if (at < mapping.begin.load() || at >= end) continue;
        const uintptr_t page = at / page_bytes * page_bytes;
        const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
        if (mmap(reinterpret_cast<void*>(page), end - page, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) break;
        mapping.faults.fetch_add(1);
        return;
    }
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal, info, context);
    } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
        sigaction(signal, &previous, nullptr);  // the instruction faults again, and that ends the process
        if (info->si_code <= 0) raise(signal);  // sent by a program: nothing faults again
    } else {
        previous.sa_handler(signal);
    }
}

void install() {
    static bool installed = false;
    if (installed) return;
    page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action = {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    installed = sigaction(SIGBUS, &action, &previous) == 0;
}

}  // namespace

extern "C" {

// The number of the guard over [start, start + bytes), or -1: too many.
int64_t spoutnik_guard_mapping(const void* start, int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    install();
    for (int64_t number = 0; number < MAPPINGS; number++) {
        Mapping& mapping = mappings[number];
        if (mapping.taken) continue;
        mapping.taken = true;
        mapping.faults.store(0);
        mapping.begin.store(reinterpret_cast<uintptr_t>(start));
        mapping.end.store(reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes));
        return number;
    }
    return -1;
}

// Before the mapping ends: its addresses may become another one's.
void spoutnik_unguard_mapping(int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex);
    mappings[number].end.store(0);
    mappings[number].begin.store(0);
    mappings[number].taken = false;
}

// How often the file was found cut off.
int64_t spoutnik_mapping_faults(int64_t number) { return mappings[number].faults.load(); }

}
