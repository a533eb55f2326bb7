//! Operator commands: resolve the artifact, decide, record, reply.

use crate::artifact;
use crate::artifact::Verifier;
use crate::config::Runtime;
use crate::machine::Proposal;
use crate::model::{Command, CommandRequest, Moment, Release, TimelineEvent};
use crate::service::inbox::{CommandError, CommandReply, ServiceMessage};
use crate::service::service_loop::ServiceLoop;

impl ServiceLoop {
    /// Resolves the artifact of a deploy first, which may take long. A command that would be refused
    /// anyway is refused at once.
    pub(crate) fn handle_command(
        &mut self,
        now: Moment,
        order: CommandRequest,
        reply: CommandReply,
    ) {
        let artifact = requested_artifact(&order);
        let lacks_artifact = artifact.is_none() && self.needs_artifact(&order);
        if artifact.is_none() && !lacks_artifact {
            return self.apply_command(now, order, None, reply);
        }
        if let Err(refusal) = self.machine.command(now, order.clone()) {
            let _ = reply.send(Err(CommandError::Refused(refusal)));
            return;
        }
        let Some(artifact) = artifact else {
            let because = "the command has {artifact}, and the deploy names none; add --artifact \
                           with what the release runs from";
            let _ = reply.send(Err(CommandError::ArtifactUnusable(because.to_owned())));
            return;
        };
        let (kind, podman) = (self.service.artifact, self.artifact_guard.podman.clone());
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            match artifact::resolve(kind, &artifact, podman.as_ref()).await {
                // The client disconnected while the artifact was resolved: drop the command.
                Ok(_) if reply.is_closed() => (),
                Ok(resolved) => {
                    let order = with_resolved_artifact(order, &resolved);
                    let _ = inbox
                        .send(ServiceMessage::ResolvedCommand(order, resolved.verifier, reply))
                        .await;
                }
                Err(error) => _ = reply.send(Err(CommandError::ArtifactUnusable(error))),
            }
        });
    }

    /// Whether it is a deploy whose command line would have a gap without an artifact.
    fn needs_artifact(&self, order: &CommandRequest) -> bool {
        let Runtime::Command(command) = &self.service.runtime else { return false };
        matches!(order.command, Command::Deploy(_))
            && command.argv.iter().any(|word| word.contains("{artifact}"))
    }

    /// Decides a command whose artifact is resolved.
    pub(crate) fn apply_command(
        &mut self,
        now: Moment,
        order: CommandRequest,
        verifier: Option<Verifier>,
        reply: CommandReply,
    ) {
        // A pause before the command is recorded before it.
        self.machine.notice_pause(now);
        self.settle();
        let entry = match self.machine.command(now, order) {
            Ok(proposal) => {
                let deployed = deployed_release(&proposal);
                if let Some((release, verifier)) = deployed.as_ref().zip(verifier) {
                    self.artifact_guard.insert(release.number, verifier);
                }
                let entry = self.record_and_apply(proposal).map_err(CommandError::NotRecorded);
                if let Some(release) = deployed.filter(|_| entry.is_ok()) {
                    let needed = self
                        .watch()
                        .phase()
                        .required_releases()
                        .iter()
                        .map(|it| it.number)
                        .collect();
                    self.artifact_guard.pin_image(&self.service, &release, needed);
                }
                entry
            }
            Err(refusal) => Err(CommandError::Refused(refusal)),
        };
        let _ = reply.send(entry);
    }
}

fn requested_artifact(order: &CommandRequest) -> Option<String> {
    match &order.command {
        Command::Deploy(deploy) => deploy.artifact.clone(),
        Command::Rollback { .. }
        | Command::Promote { .. }
        | Command::Hold { .. }
        | Command::Resume { .. } => None,
    }
}

/// Fills in the resolved artifact.
fn with_resolved_artifact(
    mut order: CommandRequest,
    resolved: &artifact::ResolvedArtifact,
) -> CommandRequest {
    if let Command::Deploy(deploy) = &mut order.command {
        deploy.artifact = Some(resolved.artifact.clone());
        deploy.digest = resolved.digest().map(ToString::to_string);
        deploy.outside_links = resolved.outside_links.clone();
    }
    order
}

/// The release that a deploy brings.
fn deployed_release(proposal: &Proposal) -> Option<Release> {
    match proposal.event() {
        TimelineEvent::Deployed { release, .. } => Some(release.clone()),
        _ => None,
    }
}
