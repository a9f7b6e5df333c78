//! Plans in which something in particular happens often, which those of all kinds meet seldom.

use super::{Draw, Op, Plan, Settings};

/// What plans are drawn towards.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    /// What the world is like.
    pub settings: fn(&mut Draw) -> Settings,
    /// What happens in a row, one of these each time; besides edits, cuts and opens.
    pub turns: &'static [fn(&mut Draw) -> Vec<Op>],
}

impl Plan {
    /// The plan of a seed, towards this.
    #[must_use]
    pub fn draw_towards(seed: u64, aim: &Aim) -> Self {
        let mut draw = Draw::of(seed);
        draw.settings = (aim.settings)(&mut draw);
        let mut at = 0;
        let mut ops = Vec::new();
        for client in 0..draw.settings.clients {
            for document in 0..draw.settings.documents {
                at += 1;
                ops.push((at, Op::Open { client, document }));
            }
        }
        for _ in 0..6 + draw.below(10) {
            at += draw.pause();
            let turn = if draw.happens(70) {
                let turn = aim.turns[draw.one_of(aim.turns.len())];
                turn(&mut draw)
            } else {
                vec![draw.op()]
            };
            for op in turn {
                at += 1 + draw.below(40);
                ops.push((at, op));
            }
        }
        Self {
            seed,
            settings: draw.settings,
            ops,
        }
    }
}
