//! `kiln login` and `kiln logout`: logins in Docker's `config.json` or with its credential helpers, as `docker login` keeps
//! them.

use super::{Cli, exit, online};
use crate::progress::chain;
use crate::registry::auth_file::AuthFile;
use crate::registry::credentials::{
    Credential, Credentials, docker_config, erase_in_helper, key_of, normalise, store_in_helper,
};
use crate::registry::login::Accepted;
use crate::registry::{Registry, Trust};
use crate::terminal;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::io::{self, BufRead, Read};

const HUB: &str = "docker.io";
/// Longest password on standard input, in bytes.
const PASSWORD_LIMIT: u64 = 1 << 20;

/// Flags of the command.
#[derive(Args)]
pub struct LoginArgs {
    /// Registry, as HOST or HOST:PORT; Docker Hub, if none is given
    server: Option<String>,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password or access token; others see it in the list of processes
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Trust any certificate, and speak plain HTTP where there is no TLS
    #[arg(long)]
    insecure: bool,
}

/// Flags of the command.
#[derive(Args)]
pub struct LogoutArgs {
    /// Registry, as HOST or HOST:PORT; Docker Hub, if none is given
    server: Option<String>,
}

/// Runs `kiln login`; gives the program's exit code.
pub fn login(cli: &Cli, args: &LoginArgs) -> Result<u8> {
    let domain = domain(args.server.as_deref())?;
    let trust = if args.insecure { Trust::Anyone } else { Trust::AsConfigured };
    let config = online::config(cli)?;
    let registry = online::registry(&config, online::patience().at_most(5)).trusting(trust, &domain);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a thread")?;
    runtime.block_on(async {
        if args.username.is_none() && args.password.is_none() {
            let lookup = credentials().lookup(&domain, "").await;
            if let Some(known) = lookup.credential {
                eprintln!("Authenticating with existing credentials... [{}]", known.user());
                match registry.try_login(&domain, &known).await {
                    Ok(_) => {
                        eprintln!("Login Succeeded");
                        return Ok(exit::SUCCESS);
                    }
                    Err(error) => eprintln!("Login did not succeed: {}", chain(&error)),
                }
            }
        }
        let (username, password) = ask(args, &domain)?;
        log_in(&registry, &domain, username, password).await
    })
}

async fn log_in(registry: &Registry, domain: &str, username: String, password: String) -> Result<u8> {
    let typed = Credential::Password { username: username.clone(), password };
    let accepted = match registry.try_login(domain, &typed).await {
        Ok(accepted) => accepted,
        Err(error) => {
            online::say_failure(&format!("{domain} does not take the login: {}", chain(&error)), error.help());
            return Ok(exit::FAILURE);
        }
    };
    let credential = match accepted {
        Accepted::AsItIs => typed,
        Accepted::Identity(token) => Credential::IdentityToken(token),
        Accepted::NotAsked => {
            eprintln!("WARNING: {domain} asks for no login, so nobody has looked at the password");
            typed
        }
    };
    keep(domain, &username, &credential).await?;
    let found = credentials().lookup(domain, "").await.credential;
    if found.is_some_and(|found| found != credential) {
        eprintln!(
            "WARNING: another login for {domain} goes before this one: look into $DOCKER_AUTH_CONFIG, \
             $REGISTRY_AUTH_FILE and credential helpers"
        );
    }
    eprintln!("Login Succeeded");
    Ok(exit::SUCCESS)
}

async fn keep(domain: &str, username: &str, credential: &Credential) -> Result<()> {
    let path = docker_config(|name| std::env::var_os(name));
    let path = path.context("neither $DOCKER_CONFIG nor $HOME is set: there is no place for the login")?;
    let mut file = AuthFile::read(&path)?;
    if let Some(helper) = file.helper(domain) {
        store_in_helper(&helper, key_of(domain), credential).await.map_err(|problem| anyhow!(problem))?;
        // It would be found if the helper cannot be asked.
        if file.remove(domain)? {
            file.write()?;
        }
        return Ok(());
    }
    file.put(domain, key_of(domain), username, credential)?;
    file.write()?;
    eprintln!(
        "WARNING! Your credentials are stored unencrypted in '{}'. Configure a credential helper (credsStore, \
         credHelpers) to avoid that.",
        file.path().display()
    );
    Ok(())
}

/// Runs `kiln logout`; gives the program's exit code.
pub fn logout(args: &LogoutArgs) -> Result<u8> {
    let domain = domain(args.server.as_deref())?;
    let path = docker_config(|name| std::env::var_os(name));
    let path = path.context("neither $DOCKER_CONFIG nor $HOME is set: there are no logins")?;
    let mut file = AuthFile::read(&path)?;
    let mut removed = file.remove(&domain)?;
    if removed {
        file.write()?;
    }
    if let Some(helper) = file.helper(&domain) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a thread")?;
        let erased = runtime.block_on(erase_in_helper(&helper, key_of(&domain)));
        removed |= erased.map_err(|problem| anyhow!(problem))?;
    }
    match removed {
        true => eprintln!("Removed the login for {domain}"),
        false => eprintln!("Not logged in to {domain}"),
    }
    Ok(exit::SUCCESS)
}

fn credentials() -> Credentials {
    Credentials::from_environment(|name| std::env::var_os(name))
}

/// The registry that is meant: `https://` and the path of its API are left out, as Docker does.
fn domain(server: Option<&str>) -> Result<String> {
    let Some(text) = server.filter(|text| !text.is_empty()) else { return Ok(HUB.to_string()) };
    let domain = normalise(text);
    if domain.contains('/') {
        bail!("`{text}`: a login is for a whole registry: give HOST or HOST:PORT");
    }
    if frontend::reference::Reference::parse(&format!("{domain}/x")).is_ok_and(|name| name.domain == domain) {
        return Ok(domain);
    }
    bail!("`{text}` is not the name of a registry: give HOST.DOMAIN, HOST:PORT or localhost");
}

/// User name and password, as far as they are not given asked for on the terminal.
fn ask(args: &LoginArgs, domain: &str) -> Result<(String, String)> {
    if args.password.is_some() {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let is_complete = args.username.is_some() && (args.password.is_some() || args.password_stdin);
    if !is_complete && !terminal::is_there() {
        bail!("there is no terminal to ask for the login on: give --username and --password-stdin");
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => {
            eprint!("Username for {domain}: ");
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).context("read the user name")?;
            line.trim().to_string()
        }
    };
    if username.is_empty() || username.contains(':') {
        bail!("`{username}` is no user name: it must not be empty or have a colon in it");
    }
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => {
            let mut text = String::new();
            let read = io::stdin().lock().take(PASSWORD_LIMIT).read_to_string(&mut text);
            read.context("read the password from standard input")?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            text.strip_suffix('\r').unwrap_or(text).to_string()
        }
        None => terminal::read_hidden("Password: ").context("read the password")?,
    };
    if password.is_empty() {
        bail!("the password is empty");
    }
    Ok((username, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(domain(Some(text)).ok().as_deref(), expect, "{text}");
        check("", Some("docker.io"));
        check("https://index.docker.io/v1/", Some("docker.io"));
        check("https://reg.example:5000/v2/", Some("reg.example:5000"));
        check("localhost", Some("localhost"));
        check("[::1]:5000", Some("[::1]:5000"));
        check("quay.io/org", None);
        check("me", None);
        check("a b.example", None);
    }
}
