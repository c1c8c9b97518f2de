//! What operators may ask of the running agent: the API's trait over the agent's methods.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use pressroom_agent::agent::{Agent, Event, Stage};
use pressroom_agent::engine::edge;
use pressroom_agent::git::{door, token};
use pressroom_agent::secrets;
use pressroom_api::cluster::{self, ChangeOf, Founding};
use pressroom_api::console;
use pressroom_api::environment::{
    Environment, Letter, LetterText, NewEnvironment, Promotion, TableDiff,
};
use pressroom_api::failure::Failure;
use pressroom_api::git::{Access, Pushed, TokenWish};
use pressroom_api::operator::{Answer, Check, InitialAdmin, Operator, Planned, Visit, Why, Wish};
use pressroom_api::progress::{Progress, Step, StepState};
use pressroom_api::release::{Code, Damage, Deployment, Details, Diff, Which};
use pressroom_api::server::Server;
use pressroom_api::wp;
use pressroom_model::affirmation::{Purge, Receipt};
use pressroom_model::cluster::Standing;
use pressroom_model::config::Config;
use pressroom_model::environment::MadeBy;
use pressroom_model::external::Etcd;
use pressroom_model::id::{EnvironmentName, SiteName};
use pressroom_model::process::ProcessSpec;
use pressroom_model::rollout::Record;
use pressroom_model::status::Status;
use pressroom_model::writes::Written;
use pressroom_plan::change;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::{self, Shutdown, Trigger};
use pressroom_runtime::tasks::Group;

use crate::deliver::Delivery;
use crate::environments::Environments;
use crate::visit;

/// A site that does not answer although everything runs is waited for so long: its first page may be slow.
const SILENCE: Duration = Duration::from_secs(60);

/// The running agent as operators see it.
pub(crate) struct ThisOperator {
    pub(crate) agent: Arc<Agent>,
    /// Ends the agent, which the keeper starts again.
    pub(crate) restart: Trigger,
}

impl ThisOperator {
    /// The operator of this agent.
    pub(crate) fn new(agent: Arc<Agent>, restart: Trigger) -> Self {
        Self { agent, restart }
    }

    pub(crate) fn delivery(&self, name: &SiteName) -> Result<Delivery<'_>, Failure> {
        self.known(name)?;
        let site = self.agent.site(name).ok_or_else(|| {
            Failure::yours(format!("there is no site `{name}`")).state("nothing was changed")
        })?;
        Ok(Delivery { agent: &self.agent, site })
    }

    pub(crate) fn environments_here(&self) -> Environments<'_> {
        Environments { agent: &self.agent }
    }

    fn access(&self, name: &SiteName, wish: TokenWish) -> Result<Access, Failure> {
        let layout = &self.agent.layout;
        let failed =
            |error| Failure::ours(format!("the token of `{name}` cannot be kept")).cause(error);
        let made = match wish {
            TokenWish::Look => None,
            TokenWish::Make => Some(token::make(layout, name).map_err(failed)?),
            TokenWish::Revoke => {
                token::revoke(layout, name).map_err(failed)?;
                None
            }
        };
        let config = self.config()?;
        let site = config.sites.iter().find(|site| site.name == *name);
        let home = site.map(|site| pressroom_agent::site::home(&config, site)).unwrap_or_default();
        Ok(Access {
            url: door::url(&home, name),
            has_token: token::exists(layout, name),
            token: made,
        })
    }

    pub(crate) fn config(&self) -> Result<Config, Failure> {
        self.agent.config().ok_or_else(|| {
            Failure::yours("nothing was applied yet").hint("start with `pressroom up`")
        })
    }

    fn known(&self, name: &SiteName) -> Result<(), Failure> {
        let config = self.config()?;
        if config.sites.iter().any(|site| site.name == *name) {
            return Ok(());
        }
        let names: Vec<&str> = config.sites.iter().map(|site| site.name.as_str()).collect();
        Err(Failure::yours(format!("there is no site `{name}`"))
            .state(format!("sites: {}", names.join(", "))))
    }

    pub(crate) async fn settle(
        &self,
        progress: &Progress,
        mut events: tokio::sync::broadcast::Receiver<Event>,
    ) -> Result<(), Failure> {
        let first = self.agent.decisions();
        let until = clock::now() + Duration::from_secs(600);
        let mut silent_since = None;
        loop {
            tokio::select! {
                event = events.recv() => if let Ok(event) = event { progress.tell(step(event)) },
                () = tokio::time::sleep(Duration::from_millis(25)) => {}
            }
            let is_settled = self.agent.decisions() >= first + 2 && self.agent.is_settled();
            // After a refusal all is quiet too.
            if let Some(failure) = self.hopeless().or_else(|| self.refused()) {
                return Err(failure);
            }
            if is_settled {
                while let Ok(event) = events.try_recv() {
                    progress.tell(step(event));
                }
                return Ok(());
            }
            let silent = self.agent.unanswering();
            if silent.is_empty() {
                silent_since = None;
            } else if clock::now() > *silent_since.get_or_insert_with(clock::now) + SILENCE {
                return Err(self.unanswering(&silent));
            }
            if clock::now() > until {
                return Err(self.not_settled("not everything was as wanted within 10 minutes"));
            }
        }
    }

    /// A failure that waiting does not mend: an action that failed again and again, or an engine in a crash loop.
    fn hopeless(&self) -> Option<Failure> {
        let is_port = |action: &str| action.starts_with("listen for http");
        // Waiting does not free a port, but may mend much else.
        let failing = self.agent.failing(1).into_iter().find(|(action, _)| is_port(action));
        if let Some((action, because)) =
            failing.or_else(|| self.agent.failing(4).into_iter().next())
        {
            let is_port = is_port(&action);
            let failure =
                if is_port { Failure::yours } else { Failure::ours }(format!("cannot {action}"));
            let failure = failure.cause(because).state(self.what_runs());
            return Some(match is_port {
                true => failure
                    .hint("stop what listens there, or choose another address in pressroom.toml"),
                false => failure
                    .hint("`pressroom doctor` looks for reasons; it is tried again meanwhile"),
            });
        }
        let status = self.agent.status();
        let looping = status.engines.iter().chain([&status.edge]);
        let process = looping
            .into_iter()
            .find(|p| p.verdict == pressroom_model::verdict::Health::CrashLoop)?;
        Some(
            Failure::ours(format!("`{}` ends again and again", process.name))
                .cause(self.agent.last_words(&process.name))
                .state(self.what_runs())
                .hint(format!("read it all: `pressroom logs {}`", process.name)),
        )
    }

    /// A version that the configuration asks for failed its check.
    fn refused(&self) -> Option<Failure> {
        let (site, refused) = self.agent.refusals().into_iter().next()?;
        Some(
            Failure::yours(format!("`{site}` was not moved to what the configuration asks for"))
                .cause(refused.because)
                .state(format!("`{site}` goes on as it was"))
                .hint(format!(
                    "mend it and `pressroom apply` again; `pressroom logs {site}` has more"
                )),
        )
    }

    fn unanswering(&self, sites: &[(String, String)]) -> Failure {
        let names: Vec<String> = sites.iter().map(|(name, _)| format!("`{name}`")).collect();
        let because: Vec<String> =
            sites.iter().map(|(name, because)| format!("{name}: {because}")).collect();
        Failure::ours(format!("everything runs, but {} does not answer", names.join(", ")))
            .cause(because.join("\n"))
            .state(self.what_runs())
            .hint(format!("read what PHP says: `pressroom logs {}`", sites[0].0))
    }

    fn not_settled(&self, what: &str) -> Failure {
        let status = self.agent.status();
        let mut open: Vec<String> = Vec::new();
        for process in status.engines.iter().chain([&status.edge]) {
            if !process.verdict.is_serving() {
                open.push(format!("{}: {} ({})", process.name, process.verdict, process.because));
            }
        }
        for site in &status.sites {
            if !site.verdict.is_serving() {
                open.push(format!("site {}: {} ({})", site.name, site.verdict, site.because));
            }
        }
        let failing = self.agent.failing(1);
        open.extend(failing.into_iter().map(|(action, because)| format!("{action}: {because}")));
        Failure::ours(what).cause(open.join("\n")).hint("`pressroom status` shows how it goes on")
    }

    fn what_runs(&self) -> String {
        let status = self.agent.status();
        let names: Vec<String> = status
            .engines
            .iter()
            .chain([&status.edge])
            .filter(|process| process.verdict.is_serving())
            .map(|process| process.name.clone())
            .collect();
        format!(
            "running: {}",
            if names.is_empty() { "nothing yet".into() } else { names.join(", ") }
        )
    }

    fn refuse(&self, wish: &Wish) -> Result<(), Failure> {
        match self.agent.refuses(&wish.config) {
            Some(because) => Err(Failure::yours("this configuration cannot be applied")
                .cause(because)
                .state("nothing was changed")),
            None => Ok(()),
        }
    }

    /// Deletes an environment.
    pub(crate) async fn take_away(
        &self,
        of: &SiteName,
        name: &EnvironmentName,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let site = self.environments_here().find(of, name)?;
        let mut events = self.agent.follow();
        let step = progress.begin(format!("delete what `{site}` had"));
        let removed = self.agent.remove_environment(&site);
        let mut removed = std::pin::pin!(removed);
        let removed = loop {
            tokio::select! {
                event = events.recv() => if let Ok(event) = event { progress.tell(self::step(event)) },
                removed = &mut removed => break removed,
            }
        };
        removed.map(|()| step.done("")).map_err(|error| {
            Failure::ours(format!("`{site}` could not be deleted"))
                .cause(error)
                .state("it is not served any more; what was not deleted is still there")
                .hint("the agent goes on trying; `pressroom status` shows how that goes")
        })
    }

    async fn apply_now(&self, wish: Wish, progress: &Progress) -> Result<(), Failure> {
        // It may have been written on another node.
        let wish = Wish { config: self.agent.localised(wish.config), ..wish };
        self.refuse(&wish)?;
        let events = self.agent.follow();
        let is_same = self.agent.written().as_ref() == Some(&wish.config);
        if !is_same {
            self.agent.intend(wish.config, wish.admin_passwords).await.map_err(|error| {
                Failure::ours("the intent could not be stored")
                    .cause(error)
                    .state("nothing was changed")
            })?;
        } else {
            self.agent.resume();
        }
        self.agent.look_at_sources().await;
        self.settle(progress, events).await
    }
}

/// An event of the agent as a step of an operation.
pub(crate) fn step(event: Event) -> Step {
    let state = match event.stage {
        Stage::Begun => StepState::Running,
        Stage::Done => StepState::Done,
        Stage::Failed => StepState::Failed,
    };
    Step { step: event.step, state, detail: event.detail, ms: event.ms }
}

impl Operator for ThisOperator {
    fn found_cluster(&self, wish: Founding) -> Answer<'_, ()> {
        Box::pin(async move { self.found(wish).await })
    }

    fn restore_cluster(&self, wish: cluster::Restoration) -> Answer<'_, ()> {
        Box::pin(async move { self.restore(wish).await })
    }

    fn reach_cluster(&self, etcd: Etcd) -> Answer<'_, ()> {
        Box::pin(async move { self.reach_by(etcd).await })
    }

    fn back_up_cluster(&self) -> Answer<'_, cluster::Backup> {
        Box::pin(async move { self.back_up().await })
    }

    fn nodes(&self) -> Answer<'_, Vec<Standing>> {
        Box::pin(async move { Ok(self.agent.standings()) })
    }

    fn resume(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.agent.resume();
            Ok(())
        })
    }

    fn node_token(&self, wish: cluster::TokenWish) -> Answer<'_, cluster::Token> {
        Box::pin(async move { self.token(&wish).await })
    }

    fn change_node(&self, wish: ChangeOf) -> Answer<'_, ()> {
        Box::pin(async move { self.change(wish).await })
    }

    fn is_led_elsewhere(&self) -> Answer<'_, bool> {
        Box::pin(async move { Ok(self.another_leads().await) })
    }

    fn pass_on(&self, request: Request<Bytes>) -> Answer<'_, Response<Incoming>> {
        Box::pin(async move { self.ask_leader(request).await })
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move { Ok(self.agent.status()) })
    }

    fn plan(&self, wish: Wish) -> Answer<'_, Vec<Planned>> {
        Box::pin(async move {
            let before = self.agent.written().unwrap_or(self.config()?);
            self.refuse(&wish)?;
            let changes = change::changes(&before, &wish.config);
            Ok(changes
                .into_iter()
                .map(|c| Planned { action: c.action, because: c.because })
                .collect())
        })
    }

    fn apply(&self, wish: Wish, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move { self.apply_now(wish, &progress).await })
    }

    fn remove_site(
        &self,
        name: SiteName,
        wish: Wish,
        progress: Progress,
    ) -> Answer<'_, std::path::PathBuf> {
        Box::pin(async move {
            self.apply_now(wish, &progress).await?;
            let step = progress.begin(format!("dump and delete what `{name}` had"));
            match self.agent.delete_site(&name).await {
                Ok(removed) => {
                    step.done(removed.kept.display().to_string());
                    Ok(removed.kept)
                }
                Err(error) => {
                    step.failed(error.to_string());
                    Err(Failure::ours(format!("`{name}` could not be deleted"))
                        .cause(error)
                        .state("it is not served any more; what was not deleted is still there"))
                }
            }
        })
    }

    fn down(&self, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            let told = progress.clone();
            self.agent
                .stop_all(move |event| told.tell(step(event)))
                .await
                .map_err(|error| Failure::ours("not everything could be stopped").cause(error))
        })
    }

    fn visit(&self, name: SiteName) -> Answer<'_, Visit> {
        Box::pin(async move {
            self.known(&name)?;
            let config = self.config()?;
            let Some(site) = config.sites.iter().find(|site| site.name == name) else {
                return Err(Failure::ours("the configuration changed meanwhile"));
            };
            let url = format!("{}/", pressroom_agent::site::home(&config, site));
            let authorities = site
                .certificate
                .as_ref()
                .map_or_else(|| self.agent.layout.authority(), |own| own.chain.clone());
            let host = site.domains[0].replace("*.", "www.");
            match (config.edge.https.first(), config.edge.http.first()) {
                (Some(address), _) => {
                    Ok(visit::visit(&config.edge, &url, &host, *address, &authorities).await)
                }
                (None, Some(address)) => {
                    let since = clock::now();
                    let got =
                        pressroom_agent::probe::http_get(&config.edge, *address, &host, "/").await;
                    let (status, because) = match got {
                        Ok((status, _)) => (status, String::new()),
                        Err(error) => (0, error.to_string()),
                    };
                    let ms = since.elapsed().as_millis() as u64;
                    Ok(Visit { url, status, is_good: status == 200, because, ms })
                }
                (None, None) => {
                    Err(Failure::yours("the edge listens nowhere").hint("set [edge] https"))
                }
            }
        })
    }

    fn take_initial_admin(&self, name: SiteName) -> Answer<'_, Option<InitialAdmin>> {
        Box::pin(async move {
            let admin =
                secrets::take_initial_admin(&self.agent.layout, &name).map_err(|error| {
                    Failure::ours("cannot read the generated password").cause(error)
                })?;
            Ok(admin.map(|admin| InitialAdmin { user: admin.user, password: admin.password }))
        })
    }

    fn applied(&self) -> Answer<'_, Option<Config>> {
        Box::pin(async move { Ok(self.agent.written()) })
    }

    fn doctor(&self) -> Answer<'_, Vec<Check>> {
        Box::pin(async move {
            use pressroom_api::operator::CheckState;
            let config = self.agent.config();
            let findings = pressroom_agent::doctor::examine(&self.agent.layout, config.as_ref());
            let mut checks: Vec<Check> = findings.into_iter().map(crate::machine::check).collect();
            let status = self.agent.status();
            let processes = status.engines.iter().chain([&status.edge]);
            let processes = processes.map(|p| (p.name.clone(), p.verdict, p.because.clone()));
            let sites = status
                .sites
                .iter()
                .map(|s| (format!("site {}", s.name), s.verdict, s.because.clone()));
            for (name, verdict, because) in processes.chain(sites) {
                let is_good = verdict.is_serving();
                let hint = if is_good {
                    String::new()
                } else {
                    format!("pressroom logs {}", name.trim_start_matches("site "))
                };
                let state = if is_good { CheckState::Good } else { CheckState::Bad };
                checks.push(Check {
                    check: name,
                    state,
                    detail: format!("{verdict}: {because}"),
                    hint,
                });
            }
            checks.extend(status.media_store.map(media_store_check));
            for (action, because) in self.agent.failing(1) {
                checks.push(Check {
                    check: action,
                    state: CheckState::Bad,
                    detail: because,
                    hint: "it is tried again".into(),
                });
            }
            Ok(checks)
        })
    }

    fn purge(&self, name: SiteName, purge: Purge) -> Answer<'_, Receipt> {
        Box::pin(async move {
            self.known(&name)?;
            let body = serde_json::json!({ "site": name, "purge": purge }).to_string();
            let answer =
                edge::ask(&self.agent.layout, "POST", "/purge", Some(body.into_bytes())).await;
            decode(answer, "the purge")
        })
    }

    fn metrics(&self) -> Answer<'_, String> {
        Box::pin(async move {
            let answer = edge::ask(&self.agent.layout, "GET", "/metrics", None).await;
            let bytes =
                answer.map_err(|error| Failure::ours("the edge does not answer").cause(error))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        })
    }

    fn deploy(&self, name: SiteName, what: Deployment, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move { self.delivery(&name)?.deploy(what, &progress).await })
    }

    fn compare(&self, name: SiteName, code: Code) -> Answer<'_, Diff> {
        Box::pin(async move { self.delivery(&name)?.compare(&code).await })
    }

    fn make_here(&self, name: SiteName, code: Code) -> Answer<'_, Code> {
        Box::pin(async move { self.delivery(&name)?.make_here(code).await })
    }

    fn releases(&self, name: SiteName) -> Answer<'_, Vec<Record>> {
        Box::pin(async move {
            self.known(&name)?;
            Ok(self.agent.releases(&name))
        })
    }

    fn wp_cli(&self, name: SiteName, wish: wp::Wish) -> Answer<'_, ProcessSpec> {
        Box::pin(async move {
            self.known(&name)?;
            let name = match &wish.environment {
                Some(environment) => self.environments_here().find(&name, environment)?,
                None => name,
            };
            crate::wp::command(&self.agent, &name, &wish)
        })
    }

    fn writes(&self, name: SiteName) -> Answer<'_, Vec<Written>> {
        Box::pin(async move {
            self.known(&name)?;
            self.agent.writes(&name).await.map_err(|error| {
                Failure::ours(format!("what `{name}` wrote cannot be listed")).cause(error)
            })
        })
    }

    fn show_release(&self, name: SiteName, which: Which) -> Answer<'_, Details> {
        Box::pin(async move { self.delivery(&name)?.show(&which).await })
    }

    fn rollback(&self, name: SiteName, which: Which, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            let has_other_tables = which.tables;
            self.delivery(&name)?.rollback(which, &progress).await?;
            match has_other_tables {
                true => {
                    let purge = Purge { all: true, ..Purge::default() };
                    self.purge(name, purge).await.map(drop)
                }
                false => Ok(()),
            }
        })
    }

    fn push(&self, name: SiteName, pushed: Pushed, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move { self.take_push(&name, &pushed, &progress).await })
    }

    fn git_access(&self, name: SiteName, wish: TokenWish) -> Answer<'_, Access> {
        Box::pin(async move {
            self.known(&name)?;
            self.access(&name, wish)
        })
    }

    fn diff(&self, name: SiteName, which: Which) -> Answer<'_, Diff> {
        Box::pin(async move { self.delivery(&name)?.diff(&which) })
    }

    fn verify(&self, name: SiteName, which: Which) -> Answer<'_, Vec<Damage>> {
        Box::pin(async move { self.delivery(&name)?.verify(&which).await })
    }

    fn environments(&self) -> Answer<'_, Vec<Environment>> {
        Box::pin(async move { Ok(self.environments_here().list()) })
    }

    fn create_environment(
        &self,
        of: SiteName,
        new: NewEnvironment,
        progress: Progress,
    ) -> Answer<'_, ()> {
        Box::pin(async move {
            self.known(&of)?;
            let events = self.agent.follow();
            self.environments_here().add(&of, new, MadeBy::Command).await?;
            self.settle(&progress, events).await
        })
    }

    fn refresh_environment(
        &self,
        of: SiteName,
        name: EnvironmentName,
        progress: Progress,
    ) -> Answer<'_, ()> {
        Box::pin(async move {
            let site = self.environments_here().find(&of, &name)?;
            let step = progress.begin(format!("copy database and media for {site}"));
            match self.agent.refresh_environment(&site).await {
                Ok(()) => {
                    step.done(String::new());
                    let purge = Purge { all: true, ..Purge::default() };
                    self.purge(site, purge).await.map(drop)
                }
                Err(error) => {
                    step.failed(error.to_string());
                    Err(Failure::ours(format!("`{site}` was not refreshed"))
                        .cause(error)
                        .state(format!(
                            "`{of}` is untouched; `{site}` may have some of the new data"
                        ))
                        .hint("try again: a refresh may be done twice"))
                }
            }
        })
    }

    fn remove_environment(
        &self,
        of: SiteName,
        name: EnvironmentName,
        progress: Progress,
    ) -> Answer<'_, ()> {
        Box::pin(async move { self.take_away(&of, &name, &progress).await })
    }

    fn letters(&self, of: SiteName, name: EnvironmentName) -> Answer<'_, Vec<Letter>> {
        Box::pin(async move { self.environments_here().letters(&of, &name).await })
    }

    fn letter(&self, of: SiteName, name: EnvironmentName, id: String) -> Answer<'_, LetterText> {
        Box::pin(async move { self.environments_here().letter(&of, &name, &id).await })
    }

    fn promote(&self, of: SiteName, promotion: Promotion, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            if !promotion.tables.is_empty() {
                self.environments_here().promote_tables(&of, &promotion, &progress).await?;
                let purge = Purge { all: true, ..Purge::default() };
                return self.purge(of, purge).await.map(drop);
            }
            let release = self.environments_here().promoted(&of, &promotion)?;
            self.delivery(&of)?.take_over(release, &progress).await
        })
    }

    fn promotable(&self, of: SiteName, name: EnvironmentName) -> Answer<'_, Diff> {
        Box::pin(async move { self.environments_here().promotable(&of, &name) })
    }

    fn compare_tables(&self, of: SiteName, promotion: Promotion) -> Answer<'_, Vec<TableDiff>> {
        Box::pin(async move { self.environments_here().compare_tables(&of, &promotion).await })
    }

    fn why(&self, url: String) -> Answer<'_, Why> {
        Box::pin(async move {
            let url = if url.starts_with('/') {
                let config = self.config()?;
                let site =
                    config.sites.first().ok_or_else(|| Failure::yours("there is no site yet"))?;
                format!("{}{url}", pressroom_agent::site::home(&config, site))
            } else {
                url
            };
            let body = serde_json::json!({ "url": url, "execute": true }).to_string();
            let answer =
                edge::ask(&self.agent.layout, "POST", "/why", Some(body.into_bytes())).await;
            let told: crate::why::Told = decode(answer, "the question")?;
            Ok(told.into_why(url))
        })
    }
}

fn decode<T: serde::de::DeserializeOwned>(
    answer: Result<hyper::body::Bytes, edge::AskError>,
    what: &str,
) -> Result<T, Failure> {
    let bytes = answer.map_err(|error| match &error {
        edge::AskError::Status { status: 400..500, text } => {
            Failure::yours(format!("the edge refused {what}")).cause(words_of(text))
        }
        _ => Failure::ours(format!("{what} did not reach the edge")).cause(error),
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::ours("the edge's answer makes no sense").cause(error))
}

/// What an error answer of the edge says.
fn words_of(text: &str) -> String {
    let error = serde_json::from_str::<serde_json::Value>(text).ok();
    let words = error.as_ref().and_then(|error| error.get("error")?.as_str());
    words.unwrap_or(text).to_owned()
}

/// Serves the console where the configuration says, and moves it when that changes.
pub(crate) async fn keep_console(agent: Arc<Agent>, server: Server, stop: Shutdown) {
    let mut current: Option<(SocketAddr, Trigger, Group)> = None;
    while !stop.is_requested() {
        let wanted = agent.config().map(|config| config.console.listen);
        if wanted != current.as_ref().map(|(address, ..)| *address) {
            if let Some((_, trigger, group)) = current.take() {
                trigger.fire("the console moves");
                group.finish(Duration::from_secs(2)).await;
            }
            if let Some(address) = wanted {
                current = open_console(&agent, &server, address).await;
            }
        }
        let pause = if current.is_some() == wanted.is_some() { 500 } else { 5000 };
        tokio::select! {
            () = stop.requested() => {}
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
    }
    if let Some((_, trigger, group)) = current {
        trigger.fire("the agent ends");
        group.finish(Duration::from_secs(2)).await;
    }
}

async fn open_console(
    agent: &Agent,
    server: &Server,
    address: SocketAddr,
) -> Option<(SocketAddr, Trigger, Group)> {
    let listener = match tokio::net::TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            agent.note(format!("the console cannot listen on {address}: {error}"));
            return None;
        }
    };
    let server = server.clone();
    let (trigger, stopped) = shutdown::pair();
    let group = Group::new("console", stopped);
    let connections = group.clone();
    group.spawn("accept", move |stop| console::serve(listener, server, connections, stop));
    Some((address, trigger, group))
}
/// How the object store of the media is.
fn media_store_check(store: pressroom_model::status::MediaStore) -> Check {
    use pressroom_api::operator::CheckState;
    let kept = match store.waiting {
        0 => "nothing waits for it".to_owned(),
        1 => "one upload or deletion waits for it".to_owned(),
        count => format!("{count} uploads and deletions wait for it"),
    };
    let (state, detail, hint) = match store.because {
        None => (CheckState::Good, format!("{} answers, {kept}", store.url), ""),
        Some(because) => (
            CheckState::Bad,
            format!("{}: {because}; {kept}, and uploads go on", store.url),
            "look at `[media]` in pressroom.toml, and whether the store runs; it is tried again",
        ),
    };
    Check { check: "object store".into(), state, detail, hint: hint.to_owned() }
}
