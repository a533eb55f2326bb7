//! The incident: what has to be reported, understood and closed. Pure: no clock, disk or network.
//!
//! 1. [`cause_of`] finds the event of a timeline that opens an [`Incident`], whose state is the fold of
//!    its record ([`IncidentEntry`]).
//! 2. The daemon gathers [`Facts`]: the timeline, the recorded signals summed ([`Traffic`]), the evidence
//!    over time ([`evidence`]).
//! 3. [`build`] makes a [`PostMortem`] of incident, facts and what people wrote ([`HumanParts`]). The rules
//!    in [`hypothesis`] and [`factor`] offer causes, each with its observation.
//! 4. [`markdown`] and [`html`] render it. The JSON is the object itself.
//! 5. A [`Notice`] tells people of an event, of the draft, and of what is due.
//! 6. A [`ReportBuilder`] counts deploys and incidents: the [`Report`].

mod action;
mod blame_clause;
mod blame_cue;
mod blame_form;
mod blame_person;
mod blame_words;
mod blameless;
mod build;
mod cause;
mod chart;
mod deploy_facts;
mod document;
mod error_rate_chart;
mod event_notice;
pub mod evidence;
#[cfg(test)]
mod example;
pub mod factor;
mod facts;
#[cfg(test)]
mod golden_tests;
mod history;
pub mod html;
mod human;
pub mod hypothesis;
mod impact;
mod label;
mod life;
pub mod markdown;
mod nearby;
mod notice;
mod output;
mod phrases;
mod record;
mod reminder;
mod report;
mod report_builder;
mod report_html;
mod report_text;
mod rows;
mod signature;
pub mod text;
mod traffic;
pub mod utc;
mod verdict;

pub use crate::incident::action::{ACTIONS_MAX, Action, ActionId, ActionKind, FIELD_MAX};
pub use crate::incident::blameless::{Blame, find_blame};
pub use crate::incident::build::{build, missing, signature};
pub use crate::incident::cause::{Cause, cause_of, completes_draft};
pub use crate::incident::deploy_facts::DeployFacts;
pub use crate::incident::document::{Offer, PostMortem, SCHEMA};
pub use crate::incident::error_rate_chart::ErrorRateChart;
pub use crate::incident::event_notice::notice_of;
pub use crate::incident::evidence::{EvidenceTrack, Opening};
pub use crate::incident::facts::{
    Change, FACTS_SCHEMA, Facts, FailureSample, OutputGroup, Reload, TIMELINE_MAX,
};
pub use crate::incident::history::{DeployHistory, DeployOutcome, HistoryRow, summarise};
pub use crate::incident::human::{HumanParts, PARTS, TEXT_BYTES_MAX, parse as parse_human};
pub use crate::incident::impact::impact;
pub use crate::incident::label::ReleaseLabel;
pub use crate::incident::life::{Incident, IncidentState};
pub use crate::incident::nearby::{nearby, nearby_window, reloads};
pub use crate::incident::notice::{
    DraftText, NOTICE_SCHEMA, Notice, NoticeKind, notice_of_acknowledgement, notice_of_close,
    notice_of_draft, notice_of_page,
};
pub use crate::incident::output::group_output;
pub use crate::incident::phrases::REVIEW_DAYS;
pub use crate::incident::record::{Author, IncidentEntry, IncidentEvent};
pub use crate::incident::reminder::{
    FollowUp, follow_up, is_overdue, is_reminder_due, notice_of_reminder,
};
pub use crate::incident::report::{
    FalseAlarms, REPORT_SCHEMA, Report, SignatureCount, Times, Week,
};
pub use crate::incident::report_builder::ReportBuilder;
pub use crate::incident::report_html::render as render_report_html;
pub use crate::incident::report_text::{percent as format_percent, render as render_report_text};
pub use crate::incident::signature::Signature;
pub use crate::incident::traffic::Traffic;
pub use crate::incident::verdict::{EXPECTED as VERDICTS, ReviewVerdict};
