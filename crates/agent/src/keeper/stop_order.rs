//! In which order everything is stopped: pure.

use super::children::Child;

/// What the order of stopping depends on.
pub(super) struct Running<'a> {
    name: &'a str,
    program: &'a std::path::Path,
    order: u64,
    is_agent: bool,
    is_stopping: bool,
}

impl<'a> Running<'a> {
    pub(super) fn of(child: &'a Child, agent: &str) -> Self {
        let state = &child.state;
        let is_agent = child.name() == agent;
        Self {
            name: child.name(),
            program: &state.spec.program,
            order: child.order,
            is_agent,
            is_stopping: state.is_stopping,
        }
    }
}

/// Reverse order of first start, neighbours of one program (all php-fpm, both Redis) together, the next ones only when these have ended;
/// the agent after everything else.
pub(super) fn next_to_stop(mut running: Vec<Running<'_>>) -> Vec<&str> {
    running.sort_by_key(|process| (process.is_agent, std::cmp::Reverse(process.order)));
    if running.iter().any(|process| process.is_stopping && !process.is_agent) {
        return Vec::new();
    }
    let first = running.first().map(|process| (process.program, process.is_agent));
    let batch =
        running.iter().take_while(|process| Some((process.program, process.is_agent)) == first);
    batch.filter(|process| !process.is_stopping).map(|process| process.name).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn running<'a>(name: &'a str, program: &'a str, order: u64) -> Running<'a> {
        Running {
            name,
            program: Path::new(program),
            order,
            is_agent: name == "agent",
            is_stopping: false,
        }
    }

    #[test]
    fn everything_stops_in_reverse_order_of_start_and_the_agent_last() {
        let mut all = vec![
            ("agent", "pressroom", 1),
            ("mariadb", "mariadbd", 2),
            ("redis-cache", "redis", 3),
            ("redis-sessions", "redis", 4),
            ("php-a", "php", 5),
            ("edge", "pressroom", 6),
            ("php-b", "php", 7),
        ];
        let mut seen = Vec::new();
        while !all.is_empty() {
            let batch = next_to_stop(
                all.iter().map(|(name, program, order)| running(name, program, *order)).collect(),
            );
            let batch: Vec<String> = batch.into_iter().map(str::to_owned).collect();
            all.retain(|(name, ..)| !batch.iter().any(|gone| gone == name));
            seen.push(batch.join("+"));
        }
        assert_eq!(
            seen,
            ["php-b", "edge", "php-a", "redis-sessions+redis-cache", "mariadb", "agent"]
        );
    }

    #[test]
    fn nobody_is_asked_while_somebody_above_still_stops() {
        let stopping = Running { is_stopping: true, ..running("php-a", "php", 3) };
        assert!(next_to_stop(vec![running("mariadb", "mariadbd", 2), stopping]).is_empty());
        let agent = Running { is_stopping: true, ..running("agent", "pressroom", 1) };
        assert_eq!(next_to_stop(vec![running("mariadb", "mariadbd", 2), agent]), ["mariadb"]);
    }
}
