// Threads that work through a forward pass together, phase by phase. They wait for each other by spinning, since a phase lasts
// microseconds, and give their core away when the wait grows long: a busy machine slows them down and never hangs them.
#pragma once

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

inline void breathe() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits until done(); a core is given away after some tens of microseconds.
template <typename Done>
inline void wait_until(Done done) {
    for (int turn = 0; !done(); turn++) turn < 4000 ? breathe() : std::this_thread::yield();
}

class Team {
   public:
    explicit Team(int members) : members(members) {}
    const int members;

    // Everybody has arrived before anybody goes on.
    void barrier() {
        if (members == 1) {
            next.store(0, std::memory_order_relaxed);
            return;
        }
        const int64_t turn = turns.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
            arrived.store(0, std::memory_order_relaxed);
            next.store(0, std::memory_order_relaxed);
            turns.store(turn + 1, std::memory_order_release);
        } else {
            wait_until([&] { return turns.load(std::memory_order_acquire) != turn; });
        }
    }

    // work(i) for each i of [0, n), `grain` of them at a time to whoever is free. All members call it alike; when it returns,
    // all is done.
    // There is one loop for any number of members: of two, the compiler might make code whose roundings differ.
    template <typename Work>
    void each(int64_t n, int64_t grain, Work work) {
        for (int64_t first; (first = taken(grain)) < n;)
            for (int64_t i = first; i < std::min(first + grain, n); i++) work(i);
        barrier();
    }

    // A grain for pieces that lie side by side in memory: some of them, where there are many, since one stream is read faster than
    // several short ones.
    int64_t neighbours(int64_t pieces) const { return pieces >= 32 * members ? 4 : 1; }

   private:
    int64_t taken(int64_t grain) {
        if (members > 1) return next.fetch_add(grain, std::memory_order_relaxed);
        const int64_t first = next.load(std::memory_order_relaxed);
        next.store(first + grain, std::memory_order_relaxed);
        return first;
    }

    alignas(64) std::atomic<int64_t> next{0};
    alignas(64) std::atomic<int64_t> turns{0};
    alignas(64) std::atomic<int> arrived{0};
};

// The process's threads. One job at a time: whoever comes second waits.
class Threads {
   public:
    // job(member) on `members` threads, the caller among them.
    static void run(int members, const std::function<void(int)>& job) {
        if (members <= 1) {
            job(0);
            return;
        }
        Threads* threads = of_this_process();
        std::lock_guard<std::mutex> turn(threads->one_at_a_time);
        threads->work(members, job);
    }

   private:
    // A forked child has none of its parent's threads, and the parent's locks as they were: held for ever, if a job was under
    // way in another thread.
    static Threads* of_this_process() {
        static std::atomic<Threads*> known{nullptr};
        Threads* threads = known.load();
        while (!threads || threads->process != getpid()) {
            Threads* made = new Threads;
            if (known.compare_exchange_strong(threads, made)) return made;
            delete made;  // another thread was first
        }
        return threads;
    }

    void work(int members, const std::function<void(int)>& job) {
        while (static_cast<int>(workers.size()) < members - 1) {
            const int member = workers.size() + 1;
            workers.emplace_back([this, member] { serve(member); });
            workers.back().detach();
        }
        running.store(members - 1, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> lock(mutex);
            current = &job;
            wanted = members;
            jobs.fetch_add(1, std::memory_order_release);
        }
        wake.notify_all();
        job(0);
        wait_until([&] { return running.load(std::memory_order_acquire) == 0; });
    }

    void serve(int member) {
#ifdef __linux__
        pthread_setname_np(pthread_self(), "spoutnik-team");  // whoever looks at the process sees whose time it is
#endif
        for (int64_t seen = 0;;) {
            // The next step of a decode comes soon: a short watch saves being woken.
            for (int turn = 0; turn < 4000 && jobs.load(std::memory_order_acquire) == seen; turn++) breathe();
            const std::function<void(int)>* job = nullptr;
            {
                std::unique_lock<std::mutex> lock(mutex);
                wake.wait(lock, [&] { return jobs.load(std::memory_order_relaxed) != seen; });
                seen = jobs.load(std::memory_order_relaxed);
                if (member < wanted) job = current;
            }
            if (job) {
                (*job)(member);
                running.fetch_sub(1, std::memory_order_release);
            }
        }
    }

    const int process = getpid();
    std::mutex one_at_a_time;
    std::vector<std::thread> workers;
    std::mutex mutex;
    std::condition_variable wake;
    std::atomic<int64_t> jobs{0};
    std::atomic<int> running{0};
    const std::function<void(int)>* current = nullptr;
    int wanted = 0;
};
