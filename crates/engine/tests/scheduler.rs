//! The scheduler by itself: who runs, who waits, and for how long.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use redline_engine::{
    Limits, NewSequence, Plan, Planned, Priority, QueueFull, Scheduler, SequenceId, TokenId,
};
use redline_model::LogitRows;

const MS: Duration = Duration::from_millis(1);

fn limits() -> Limits {
    Limits {
        context: 1024,
        pages: 64,
        step_tokens: 512,
        logit_rows: 32,
        window: None,
        running: 8,
        waiting: 100,
        decode_delay: 50 * MS,
        step_time: 1000 * MS,
        prefix_cache: true,
    }
}

fn sequence(prompt: usize, start: u32) -> NewSequence {
    NewSequence {
        prompt: (0..prompt as u32).map(|i| TokenId(start + i)).collect(),
        max_tokens: 20,
        priority: Priority::Normal,
        deadline: None,
        prompt_logits: false,
        sibling: None,
    }
}

/// Does what a plan says; whoever gets logits draws token 1.
fn carry_out(scheduler: &mut Scheduler, plan: &Plan) {
    for planned in &plan.sequences {
        let draws = planned.logits != LogitRows::None;
        scheduler.commit(planned, &[TokenId(1)][..usize::from(draws)]);
    }
}

fn step(scheduler: &mut Scheduler, now: Duration) -> Plan {
    let plan = scheduler.plan(now);
    carry_out(scheduler, &plan);
    plan
}

fn parts(plan: &Plan) -> Vec<(u64, usize, usize)> {
    let part = |planned: &Planned| (planned.id.0, planned.position, planned.count);
    plan.sequences.iter().map(part).collect()
}

#[test]
fn whoever_waits_gets_a_turn_whatever_others_matter() {
    for (priority, latest) in [(Priority::Normal, 3), (Priority::Low, 11)] {
        let mut scheduler = Scheduler::new(Limits {
            running: 1,
            ..limits()
        });
        let patient = NewSequence {
            priority,
            ..sequence(4, 0)
        };
        let busy = || NewSequence {
            priority: Priority::High,
            ..sequence(4, 500)
        };
        let mut running = scheduler.submit(busy(), Duration::ZERO).unwrap();
        let patient = scheduler.submit(patient, Duration::ZERO).unwrap();
        // Every 100 ms one that matters more comes and another one ends.
        let served = (1..).find(|tick| {
            let now = tick * 100 * MS;
            let next = scheduler.submit(busy(), now).unwrap();
            scheduler.remove(running);
            running = next;
            step(&mut scheduler, now).computes(patient)
        });
        let seconds = served.unwrap() / 10;
        assert!(
            (latest - 2..latest).contains(&seconds),
            "{priority:?}: {seconds} s"
        );
    }
}

#[test]
fn a_prompt_takes_no_more_of_a_step_than_others_can_spare() {
    let mut scheduler = Scheduler::new(limits());
    let first = scheduler.submit(sequence(7, 0), Duration::ZERO).unwrap();
    let plan = step(&mut scheduler, Duration::ZERO);
    assert_eq!(parts(&plan), [(first.0, 0, 7)]);
    scheduler.commit_time(&plan, 10 * MS);
    // What a prompt costs is not known yet.
    let second = scheduler
        .submit(sequence(400, 100), Duration::ZERO)
        .unwrap();
    let plan = step(&mut scheduler, Duration::ZERO);
    assert_eq!(parts(&plan), [(first.0, 7, 1), (second.0, 0, 8)]);
    // Eight tokens took 8 ms: 32 and what chance may add fit into 50 ms.
    scheduler.commit_time(&plan, 8 * MS);
    let plan = step(&mut scheduler, Duration::ZERO);
    assert_eq!(parts(&plan), [(first.0, 8, 1), (second.0, 8, 32)]);
    // Half of the delay is spent by somebody else, once.
    scheduler.spend(25 * MS);
    let plan = step(&mut scheduler, Duration::ZERO);
    assert_eq!(parts(&plan), [(first.0, 9, 1), (second.0, 40, 16)]);
    let plan = step(&mut scheduler, Duration::ZERO);
    assert_eq!(parts(&plan), [(first.0, 10, 1), (second.0, 56, 32)]);
    // Alone, it has the whole step.
    scheduler.remove(first);
    let plan = step(&mut scheduler, Duration::ZERO);
    assert_eq!(parts(&plan), [(second.0, 88, 312)]);
}

#[test]
fn answers_to_one_prompt_compute_it_once() {
    let mut scheduler = Scheduler::new(limits());
    let first = scheduler.submit(sequence(100, 0), Duration::ZERO).unwrap();
    let sibling = || NewSequence {
        sibling: Some(first),
        ..sequence(100, 0)
    };
    let others: Vec<SequenceId> = (0..3)
        .map(|_| scheduler.submit(sibling(), Duration::ZERO).unwrap())
        .collect();
    assert_eq!(parts(&step(&mut scheduler, Duration::ZERO)), [(0, 0, 100)]);
    let plan = step(&mut scheduler, Duration::ZERO);
    let last = |id: &SequenceId| (id.0, 99, 1);
    let expected: Vec<_> = [(0, 100, 1)]
        .into_iter()
        .chain(others.iter().map(last))
        .collect();
    assert_eq!(parts(&plan), expected);
    // One full page is theirs together, each has a copy of the other.
    assert_eq!(plan.copies.len(), 3);
    assert_eq!(scheduler.load().pages_in_use, 1 + 4);
}

#[test]
fn who_comes_when_too_many_wait_is_refused() {
    let mut scheduler = Scheduler::new(Limits {
        waiting: 2,
        ..limits()
    });
    for _ in 0..2 {
        scheduler.submit(sequence(1, 0), Duration::ZERO).unwrap();
    }
    assert!(!scheduler.has_room(1));
    let refused = scheduler.submit(sequence(1, 0), Duration::ZERO);
    assert_eq!(refused, Err(QueueFull));
    step(&mut scheduler, Duration::ZERO);
    assert!(scheduler.has_room(2));
}

#[test]
fn who_is_late_is_gone() {
    let mut scheduler = Scheduler::new(limits());
    let late = NewSequence {
        deadline: Some(10 * MS),
        ..sequence(100, 0)
    };
    let id = scheduler.submit(late, Duration::ZERO).unwrap();
    assert!(step(&mut scheduler, 9 * MS).computes(id));
    let plan = step(&mut scheduler, 10 * MS);
    assert_eq!((plan.expired, plan.sequences), (vec![id], vec![]));
    assert_eq!(scheduler.load().pages_in_use, 0);
}

#[test]
fn wrong_guesses_leave_nothing_behind() {
    let mut scheduler = Scheduler::new(limits());
    let id = scheduler.submit(sequence(10, 0), Duration::ZERO).unwrap();
    step(&mut scheduler, Duration::ZERO);
    let ids = |ids: &[u32]| ids.iter().copied().map(TokenId).collect::<Vec<_>>();
    scheduler.draft(id, &ids(&[7, 8, 9]));
    let plan = scheduler.plan(Duration::ZERO);
    assert_eq!(parts(&plan), [(0, 10, 4)]);
    let part = scheduler.part_of(&plan.sequences[0]);
    assert_eq!((part.known, part.drafts), (11, &ids(&[7, 8, 9])[..]));
    // The first was right, the second not.
    scheduler.commit(&plan.sequences[0], &ids(&[7, 5]));
    let expected: Vec<TokenId> = (0..10).chain([1, 7, 5]).map(TokenId).collect();
    assert_eq!(scheduler.decoding(id), Some(&expected[..]));
    assert_eq!(parts(&scheduler.plan(Duration::ZERO)), [(0, 12, 1)]);
}
