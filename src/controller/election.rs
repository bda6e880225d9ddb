//! Who of several controllers works: what to do about the Lease as it was found. Pure; the clock is an argument.
//!
//! In: the Lease's fields, the time since this process began. Out: make it, take it, renew it or leave it. Never: compares a time
//! that another wrote with its own clock: a Lease is over when *we* have not seen it change for as long as it says, as
//! `client-go/tools/leaderelection` has it. So clocks may differ by any amount, as long as they run at about the same rate.

use std::time::Duration;

use crate::kube::lease::LeaseSpec;

/// How long a Lease lasts that is not renewed. Who is killed is replaced after this and one [`RETRY`].
pub const LASTS: Duration = Duration::from_secs(10);
/// Who could not renew for so long stops working: before others may begin.
pub const DEADLINE: Duration = Duration::from_secs(7);
/// How often the leader renews.
pub const RENEW: Duration = Duration::from_secs(2);
/// How often the others look.
pub const RETRY: Duration = Duration::from_secs(1);

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Write this over what was found (or where nothing was); who succeeds leads.
    Write(LeaseSpec),
    /// Somebody else leads.
    Wait,
}

/// One controller's memory of the Lease.
#[derive(Debug)]
pub struct Election {
    me: String,
    /// What was seen last, and when it was first seen so.
    seen: Option<(LeaseSpec, Duration)>,
    /// When the last renewal that succeeded was begun.
    renewed: Option<Duration>,
}

impl Election {
    /// Under a name that no other process has.
    pub fn new(me: String) -> Election {
        Election { me, seen: None, renewed: None }
    }

    /// What to do about what was found at `now`; `clock`: the time to write down, which nobody believes.
    pub fn next(&mut self, found: Option<&LeaseSpec>, now: Duration, clock: &str) -> Next {
        let Some(found) = found else { return Next::Write(self.mine(clock, 0)) };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != found) {
            self.seen = Some((found.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if found.holder_identity == self.me {
            let renewed = LeaseSpec { renew_time: Some(clock.to_owned()), ..found.clone() };
            return Next::Write(LeaseSpec { lease_duration_seconds: seconds(LASTS), ..renewed });
        }
        let lasts = Duration::from_secs(found.lease_duration_seconds.into());
        if !found.holder_identity.is_empty() && now < since + lasts {
            return Next::Wait;
        }
        Next::Write(self.mine(clock, found.lease_transitions.saturating_add(1)))
    }

    /// A write that was begun at this time has succeeded.
    pub fn won(&mut self, begun: Duration) {
        self.renewed = Some(begun);
    }

    /// Somebody else has it.
    pub fn lost(&mut self) {
        self.renewed = None;
    }

    /// Until when this one may work; `None`: it does not lead.
    pub fn leads_until(&self) -> Option<Duration> {
        self.renewed.map(|begun| begun + DEADLINE)
    }

    /// What to write so that another may take over at once; `None` if it is not ours.
    pub fn released(&self, found: &LeaseSpec, clock: &str) -> Option<LeaseSpec> {
        (found.holder_identity == self.me).then(|| LeaseSpec {
            holder_identity: String::new(),
            lease_duration_seconds: 1,
            acquire_time: Some(clock.to_owned()),
            renew_time: Some(clock.to_owned()),
            lease_transitions: found.lease_transitions,
        })
    }

    fn mine(&self, clock: &str, transitions: u32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: self.me.clone(),
            lease_duration_seconds: seconds(LASTS),
            acquire_time: Some(clock.to_owned()),
            renew_time: Some(clock.to_owned()),
            lease_transitions: transitions,
        }
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn written(next: Next) -> LeaseSpec {
        match next {
            Next::Write(spec) => spec,
            Next::Wait => panic!("it waits"),
        }
    }

    #[test]
    fn the_first_takes_it_and_the_second_waits_until_it_has_not_changed_for_as_long_as_it_says() {
        let (mut one, mut two) = (Election::new("one".into()), Election::new("two".into()));
        let first = written(one.next(None, at(0), "a"));
        assert_eq!(two.next(Some(&first), at(100), "z"), Next::Wait, "it has just been seen");
        let renewed = written(one.next(Some(&first), at(2), "b"));
        assert_eq!(two.next(Some(&renewed), at(109), "z"), Next::Wait);
        assert_eq!(two.next(Some(&renewed), at(118), "z"), Next::Wait);
        let taken = written(two.next(Some(&renewed), at(119), "z"));
        assert_eq!((taken.holder_identity.as_str(), taken.lease_transitions), ("two", 1));
        assert_eq!(one.next(Some(&taken), at(12), "c"), Next::Wait);
    }

    #[test]
    fn what_was_released_is_taken_at_once_and_a_time_in_the_future_impresses_nobody() {
        let (mut one, mut two) = (Election::new("one".into()), Election::new("two".into()));
        let mut held = written(one.next(None, at(0), "2999-01-01T00:00:00Z"));
        assert_eq!(two.next(Some(&held), at(0), ""), Next::Wait);
        assert!(matches!(two.next(Some(&held), at(10), ""), Next::Write(_)));
        assert_eq!(two.released(&held, ""), None, "who has it not cannot release it");
        held = one.released(&held, "").unwrap();
        assert!(matches!(two.next(Some(&held), at(10), ""), Next::Write(_)));
    }

    #[test]
    fn who_cannot_renew_stops_before_another_may_begin() {
        let mut one = Election::new("one".into());
        let _ = one.next(None, at(5), "");
        one.won(at(5));
        assert_eq!(one.leads_until(), Some(at(12)));
        assert!(DEADLINE < LASTS);
        one.lost();
        assert_eq!(one.leads_until(), None);
    }

    proptest! {
        /// Each looks when chance lets it, its clock being off by anything; requests succeed or fail. Never do two lead.
        #[test]
        fn there_are_never_two_leaders(
            offsets in prop::array::uniform3(0u64..1_000_000),
            looks in prop::collection::vec((0usize..3, 0u64..9_000, any::<bool>()), 1..200),
        ) {
            let mut all: Vec<Election> = (0..3).map(|n| Election::new(format!("c{n}"))).collect();
            let (mut lease, mut now): (Option<LeaseSpec>, u64) = (None, 0);
            for (step, (who, pause, succeeds)) in looks.into_iter().enumerate() {
                now += pause;
                let own = |n: usize| Duration::from_millis(now + offsets[n]);
                let next = all[who].next(lease.as_ref(), own(who), &step.to_string());
                match next {
                    Next::Write(spec) if succeeds => {
                        lease = Some(spec);
                        all[who].won(own(who));
                    }
                    Next::Write(_) => {}
                    Next::Wait => all[who].lost(),
                }
                let leading = (0..3).filter(|n| all[*n].leads_until().is_some_and(|until| own(*n) < until));
                prop_assert!(leading.count() <= 1);
            }
        }
    }
}
