//! The pool's threads at hand for many short tasks: handing one out takes about a microsecond, where waking a thread of
//! the pool takes five to ten, which is what a whole layer of a small model takes to decode a token.
//!
//! The threads that wait look at one word: a generation, the number of tasks in it, and the next one that nobody has
//! taken. They look for some microseconds, then let other programs run between two looks: on a busy machine a thread
//! that only spins would keep the very thread from running that it waits for.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Looks before a waiting thread lets others run: some tens of microseconds.
const LOOKS: u32 = 4096;

/// Looks of a leader who waits for the others: a thread that sleeps can take longer, a short step should not.
const FIRST_LOOKS: u32 = 512;

/// Added to the number of those who are here when nobody else is let in.
const CLOSED: usize = usize::MAX / 2 + 1;

/// Most tasks of a generation.
pub(super) const MOST: usize = u16::MAX as usize;

/// Tasks by number.
struct Job<'a> {
    run: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    /// Runs a task; its panic is kept for the leader.
    fn run(&self, task: usize) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (self.run)(task))) {
            self.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(payload);
        }
    }
}

#[derive(Default)]
pub(super) struct Team {
    /// Generation (32 bits), number of tasks (16), next task (16).
    ticket: AtomicU64,
    /// The generation's job, on the leader's stack.
    job: AtomicPtr<()>,
    /// Finished tasks of the generation.
    done: AtomicUsize,
    /// Threads that came to serve, and whether the leader has begun.
    here: AtomicUsize,
    over: AtomicBool,
}

thread_local! {
    /// The team that this thread leads.
    static LED: Cell<Option<*const Team>> = const { Cell::new(None) };
}

/// Runs `body` on the calling thread, with the other threads of its pool waiting for what it hands out by [`super::run`].
/// Work that it gives to rayon otherwise is done by the calling thread alone, and by threads that came too late.
///
/// Where a thread has gone to sleep it can take longer to come than a short `body` lasts: better one team for many steps than
/// one for each.
pub fn team<R>(body: impl FnOnce() -> R) -> R {
    let Some(leader) = rayon::current_thread_index() else { return body() };
    if rayon::current_num_threads() == 1 || LED.get().is_some() {
        return body();
    }
    let team = Team::default();
    let result = rayon::in_place_scope(|scope| {
        // The leader's own turn may come while it waits for something else.
        scope.spawn_broadcast(|_, context| {
            if context.index() != leader {
                team.serve();
            }
        });
        if team.begin(rayon::current_num_threads() - 1) {
            LED.set(Some(&team));
        }
        let result = catch_unwind(AssertUnwindSafe(body));
        LED.set(None);
        team.over.store(true, Ordering::Release);
        result
    });
    result.unwrap_or_else(|payload| resume_unwind(payload))
}

/// Whether this thread leads a team, and is not in one of its tasks.
pub fn leads() -> bool {
    LED.get().is_some()
}

/// Hands `count` tasks to the team that this thread leads, and takes part.
pub(super) fn run(count: usize, task: &(dyn Fn(usize) + Sync)) {
    // While the leader is in a task, what that hands out is its own.
    let team = LED.take().expect("a team that this thread leads");
    // SAFETY: the team lives as long as `team` runs, which sets the pointer and takes it away.
    let done = catch_unwind(AssertUnwindSafe(|| unsafe { &*team }.lead(count, task)));
    LED.set(Some(team));
    done.unwrap_or_else(|payload| resume_unwind(payload));
}

impl Team {
    fn lead(&self, count: usize, run: &(dyn Fn(usize) + Sync)) {
        let job = Job { run, panic: Mutex::new(None) };
        self.done.store(0, Ordering::Relaxed);
        self.job.store((&raw const job).cast::<()>().cast_mut(), Ordering::Relaxed);
        let generation = (self.ticket.load(Ordering::Relaxed) >> 32) + 1;
        // Releases the job and the count to those who see the new generation.
        self.ticket.store(generation << 32 | (count as u64) << 16, Ordering::Release);
        while self.take_one() {}
        let mut looks = 0;
        while self.done.load(Ordering::Acquire) < count {
            wait(&mut looks);
        }
        if let Some(payload) = job.panic.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            resume_unwind(payload);
        }
    }

    /// Waits some microseconds for the `others`, and goes on with those who are here; `false` if nobody is.
    fn begin(&self, others: usize) -> bool {
        for _ in 0..FIRST_LOOKS {
            if self.here.load(Ordering::Relaxed) == others {
                break;
            }
            std::hint::spin_loop();
        }
        self.here.fetch_add(CLOSED, Ordering::Relaxed) > 0
    }

    /// Takes tasks until the team is dissolved.
    fn serve(&self) {
        // One who comes later may hold a part of what the leader has given to rayon, below this call: it would wait for the
        // leader, and the leader for that part.
        if self.here.fetch_add(1, Ordering::Relaxed) >= CLOSED {
            return;
        }
        let mut looks = 0;
        while !self.over.load(Ordering::Acquire) {
            if self.take_one() {
                looks = 0;
            } else {
                wait(&mut looks);
            }
        }
    }

    /// Takes and runs the next task; `false` if there is none.
    fn take_one(&self) -> bool {
        let ticket = self.ticket.load(Ordering::Acquire);
        let (count, next) = (ticket >> 16 & 0xffff, ticket & 0xffff);
        if next >= count {
            return false;
        }
        let job = self.job.load(Ordering::Relaxed).cast::<Job>();
        if self.ticket.compare_exchange(ticket, ticket + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // SAFETY: this task was not taken, so the generation was not finished, and it is not before `done` counts it: until
            // then the leader neither leaves `lead`, where the job lives, nor sets another.
            unsafe { &*job }.run(next as usize);
            self.done.fetch_add(1, Ordering::Release);
        }
        true
    }
}

fn wait(looks: &mut u32) {
    *looks += 1;
    if *looks < LOOKS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod test {
    use super::super::run;
    use super::{Team, team};
    use crate::oracle::with_threads;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    #[test]
    fn every_task_runs_once_and_is_done_on_return() {
        for threads in [1, 2, 5] {
            with_threads(threads, || {
                team(|| {
                    for count in [0, 1, 2, 3, 17, 400] {
                        for _ in 0..200 {
                            let mut hits = vec![0usize; count];
                            run(hits.iter_mut().enumerate(), |(index, hit)| *hit += index + 1);
                            assert!(hits.iter().enumerate().all(|(index, hit)| *hit == index + 1));
                        }
                    }
                });
            });
        }
    }

    #[test]
    fn tasks_may_hand_out_tasks() {
        let sum = AtomicUsize::new(0);
        with_threads(3, || {
            team(|| run(0..10, |_| run(0..10, |_| run(0..3, |task| _ = sum.fetch_add(task, Ordering::Relaxed)))));
        });
        assert_eq!(sum.into_inner(), 300);
    }

    #[test]
    fn other_work_of_the_pool_goes_on() {
        let sum = with_threads(3, || {
            team(|| {
                let (left, right) = rayon::join(|| rayon::join(|| 1, || 2), || rayon::join(|| 3, || 4));
                left.0 + left.1 + right.0 + right.1
            })
        });
        assert_eq!(sum, 10);
    }

    #[test]
    fn who_comes_late_does_not_wait_for_the_leader() {
        let team = Team::default();
        assert!(!team.begin(1), "nobody is here");
        // Would look for tasks until the leader is done.
        team.serve();
        team.serve();
        let team = Team::default();
        std::thread::scope(|scope| {
            scope.spawn(|| team.serve());
            while team.here.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            assert!(team.begin(1));
            team.serve();
            team.over.store(true, Ordering::Release);
        });
    }

    /// A thread that has taken a part of the leader's work must not wait, on top of it, for the leader. That took a thread
    /// that the system stopped between two of its looks for work, and came after seconds of this, or a minute.
    #[test]
    fn work_of_the_pool_never_waits_for_the_team() {
        let (turned, turns) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            with_threads(2, || {
                for turn in 0.. {
                    let spin = |times: u64| (0..times).for_each(|_| std::hint::spin_loop());
                    let parts = || (0..50).for_each(|_| _ = rayon::join(|| spin(60), || spin(60)));
                    team(|| rayon::join(|| spin(turn * 7919 % 4000), parts));
                    if turned.send(()).is_err() {
                        break;
                    }
                }
            });
        });
        let (start, over) = (Instant::now(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // One thread too many for two cores.
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let mut turned = Ok(());
            while turned.is_ok() && start.elapsed() < Duration::from_secs(5) {
                turned = turns.recv_timeout(Duration::from_secs(30));
            }
            over.store(true, Ordering::Relaxed);
            turned.expect("every turn ends");
        });
    }

    #[test]
    fn a_panic_comes_back_and_the_threads_go_on() {
        with_threads(3, || {
            for _ in 0..20 {
                let caught = std::panic::catch_unwind(|| {
                    team(|| run(0..50, |task| assert!(task != 33, "task 33 fails")));
                });
                assert!(caught.is_err());
                let sum = AtomicUsize::new(0);
                team(|| run(0..50, |task| _ = sum.fetch_add(task, Ordering::Relaxed)));
                assert_eq!(sum.into_inner(), 49 * 25);
            }
        });
    }
}
