//! Answers kept for repeated request ids.
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use crate::event::{Action, Decision, Outcome};
use crate::message::Text;
use crate::messages;

messages! {
    /// What was answered to one (manager, `request_id`): the decision holds the request as well.
    Answer { decision: Decision, intent_id: Option<u64>, outcome: Option<Outcome> }
}

impl Answer {
    /// Whether the same was asked.
    #[must_use]
    pub fn is_to(&self, account_id: &str, ticket: u64, asked_epoch: u64, action: &Action) -> bool {
        let decision = &self.decision;
        decision.account_id == *account_id
            && decision.ticket == ticket
            && decision.asked_epoch == asked_epoch
            && decision.action == *action
    }
}

type RequestKey = (Text, Text);

/// The last answers; the oldest is forgotten first.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Only looked up; walked in the order of recording.
    kept: HashMap<RequestKey, Answer, BuildHasherDefault<DefaultHasher>>,
    order: VecDeque<RequestKey>,
    limit: usize,
}

impl Answers {
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn get(&self, manager: &Text, request_id: &Text) -> Option<&Answer> {
        self.kept.get(&(manager.clone(), request_id.clone()))
    }

    /// Records an answer; decisions of DTMS itself carry no request id and are not kept.
    pub fn record(&mut self, answer: Answer) {
        if answer.decision.request_id.is_empty() {
            return;
        }
        let key = (
            answer.decision.manager.clone(),
            answer.decision.request_id.clone(),
        );
        if self.kept.insert(key.clone(), answer).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.kept.remove(&oldest);
            }
        }
    }

    /// Notes the intent of the answer recorded last, if it granted it; says to which request.
    pub fn link(&mut self, decision_id: u64, intent_id: u64) -> Text {
        let newest = self.order.back().and_then(|key| self.kept.get_mut(key));
        match newest.filter(|answer| answer.decision.decision_id == decision_id) {
            Some(answer) => {
                answer.intent_id = Some(intent_id);
                answer.decision.request_id.clone()
            }
            None => Text::default(),
        }
    }

    pub fn amend(&mut self, manager: &Text, request_id: &Text, amend: impl FnOnce(&mut Answer)) {
        if let Some(answer) = self.kept.get_mut(&(manager.clone(), request_id.clone())) {
            amend(answer);
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Answer> {
        self.order.iter().filter_map(|key| self.kept.get(key))
    }
}
