// The threads of the process, and groups of them that share the loops of one function. They wait for each other by spinning,
// since a loop lasts microseconds, and yield their core when the wait grows long: a busy machine slows them down and never
// hangs them.
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

inline void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins until done(); yields the core after some tens of microseconds.
template <typename Done>
inline void wait_until(Done done) {
    for (int spin = 0; !done(); spin++) spin < 4000 ? cpu_relax() : std::this_thread::yield();
}

// Threads that run the same function together.
class ThreadGroup {
   public:
    explicit ThreadGroup(int size) : size(size) {}
    const int size;

    // Returns when all threads have called it.
    void barrier() {
        if (size == 1) {
            next.store(0, std::memory_order_relaxed);
            return;
        }
        const int64_t round = rounds.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            arrived.store(0, std::memory_order_relaxed);
            next.store(0, std::memory_order_relaxed);
            rounds.store(round + 1, std::memory_order_release);
        } else {
            wait_until([&] { return rounds.load(std::memory_order_acquire) != round; });
        }
    }

    // work(i) for each i of [0, n), `chunk` of them at a time to the next free thread. All threads call it alike; when it
    // returns, all is done. There is one loop for any number of threads: two might be compiled to different roundings.
    template <typename Work>
    void parallel_for(int64_t n, int64_t chunk, Work work) {
        for (int64_t first; (first = take(chunk)) < n;)
            for (int64_t i = first; i < std::min(first + chunk, n); i++) work(i);
        barrier();
    }

    // A chunk of `n` pieces that lie side by side in memory: several, if there are many, since one long stream is read faster
    // than short ones.
    int64_t stream_chunk(int64_t n) const { return n >= 32 * size ? 4 : 1; }

   private:
    int64_t take(int64_t chunk) {
        if (size > 1) return next.fetch_add(chunk, std::memory_order_relaxed);
        const int64_t first = next.load(std::memory_order_relaxed);
        next.store(first + chunk, std::memory_order_relaxed);
        return first;
    }

    alignas(64) std::atomic<int64_t> next{0};
    alignas(64) std::atomic<int64_t> rounds{0};
    alignas(64) std::atomic<int> arrived{0};
};

// The threads of this process. One job at a time: a second caller waits.
class ThreadPool {
   public:
    // job(index) on `count` threads, the caller among them as index 0.
    static void run(int count, const std::function<void(int)>& job) {
        if (count <= 1) {
            job(0);
            return;
        }
        ThreadPool* pool = of_this_process();
        std::lock_guard<std::mutex> lock(pool->one_at_a_time);
        pool->work(count, job);
    }

   private:
    // A forked child has none of its parent's threads, and its locks as they were: held forever, if a job was running in
    // another thread.
    static ThreadPool* of_this_process() {
        static std::atomic<ThreadPool*> current{nullptr};
        ThreadPool* pool = current.load();
        while (!pool || pool->process != getpid()) {
            ThreadPool* created = new ThreadPool;
            if (current.compare_exchange_strong(pool, created)) return created;
            delete created;  // another thread was first
        }
        return pool;
    }

    void work(int count, const std::function<void(int)>& job) {
        while (static_cast<int>(workers.size()) < count - 1) {
            const int index = workers.size() + 1;
            workers.emplace_back([this, index] { serve(index); });
            workers.back().detach();
        }
        running.store(count - 1, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> lock(mutex);
            current = &job;
            job_threads = count;
            jobs.fetch_add(1, std::memory_order_release);
        }
        wake.notify_all();
        job(0);
        wait_until([&] { return running.load(std::memory_order_acquire) == 0; });
    }

    void serve(int index) {
#ifdef __linux__
        pthread_setname_np(pthread_self(), "spoutnik-pool");  // shown by tools that list threads
#endif
        for (int64_t seen = 0;;) {
            // The next step of a decode comes soon: spinning for a while saves being woken.
            for (int spin = 0; spin < 4000 && jobs.load(std::memory_order_acquire) == seen; spin++) cpu_relax();
            const std::function<void(int)>* job = nullptr;
            {
                std::unique_lock<std::mutex> lock(mutex);
                wake.wait(lock, [&] { return jobs.load(std::memory_order_relaxed) != seen; });
                seen = jobs.load(std::memory_order_relaxed);
                if (index < job_threads) job = current;
            }
            if (job) {
                (*job)(index);
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
    int job_threads = 0;
};
