//! `kiln login` and `kiln logout`, and builds with the logins.

use harness::{Finished, Kiln, Registry, Tree};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

/// Runs a command with Docker's configuration in `folder`.
fn run(kiln: &Kiln, folder: &Path, args: &[&str], input: &str) -> Finished {
    let mut command = kiln.command(args[0]);
    let helpers = std::env::join_paths(
        [folder.to_path_buf()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    command.args(&args[1..]).env("DOCKER_CONFIG", folder).env("PATH", helpers.unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Finished::wait(child)
}

fn log_in(kiln: &Kiln, folder: &Path, registry: &Registry, password: &str) -> Finished {
    run(kiln, folder, &["login", &registry.host, "-u", Registry::USER, "--password-stdin"], &format!("{password}\n"))
}

fn pushes(kiln: &Kiln, folder: &Path, registry: &Registry) -> Finished {
    let name = format!("{}/private/app:1", registry.host);
    let context = Tree::dockerfile("FROM scratch\nCOPY a /a\n").file("a", "A");
    let build = kiln.build(&context).env("DOCKER_CONFIG", &folder.display().to_string());
    build.args([format!("--output=type=image,name={name},push=true")]).run()
}

#[test]
fn builds_use_logins_until_they_are_forgotten() {
    let registry = Registry::start_guarded().unwrap();
    let kiln = Kiln::with_config("");
    let docker = tempfile::tempdir().unwrap();
    let file = docker.path().join("config.json");
    fs::write(&file, "{\n\t\"detachKeys\": \"ctrl-e,e\"\n}").unwrap();

    let refused = pushes(&kiln, docker.path(), &registry);
    assert_eq!(refused.status.code(), Some(75), "{}", refused.report());
    refused.says(&["401 Unauthorized", &format!("kiln login {}", registry.host), "kiln push "]);

    let wrong = log_in(&kiln, docker.path(), &registry, "wrong");
    assert_eq!(wrong.status.code(), Some(1), "{}", wrong.stderr);
    wrong.says(&["does not take the login", "401 Unauthorized"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "{\n\t\"detachKeys\": \"ctrl-e,e\"\n}");

    let right = log_in(&kiln, docker.path(), &registry, Registry::PASSWORD);
    assert_eq!(right.status.code(), Some(0), "{}", right.stderr);
    right.says(&["Login Succeeded", "stored unencrypted in"]);
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.starts_with("{\n\t\"detachKeys\": \"ctrl-e,e\",\n\t\"auths\": {"), "{kept}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // Also what could not be pushed before.
    let resumed = run(&kiln, docker.path(), &["push"], "");
    assert_eq!(resumed.status.code(), Some(0), "{}", resumed.stderr);
    assert!(resumed.text().starts_with(&format!("{}/private/app:1@sha256:", registry.host)), "{}", resumed.text());
    let built = pushes(&kiln, docker.path(), &registry);
    assert_eq!(built.status.code(), Some(0), "{}", built.report());
    // Without being told who, it is asked with what is known.
    run(&kiln, docker.path(), &["login", &registry.host], "").says(&["existing credentials", "Login Succeeded"]);

    run(&kiln, docker.path(), &["logout", &registry.host], "").says(&["Removed the login"]);
    run(&kiln, docker.path(), &["logout", &registry.host], "").says(&["Not logged in"]);
    assert!(fs::read_to_string(&file).unwrap().contains("\"auths\": {}"));
    assert_eq!(pushes(&kiln, docker.path(), &registry).status.code(), Some(75));
}

#[test]
fn helpers_keep_logins() {
    let registry = Registry::start_guarded().unwrap();
    let kiln = Kiln::with_config("");
    let docker = tempfile::tempdir().unwrap();
    let helper = docker.path().join("docker-credential-test");
    // Keeps one login in a file beside itself.
    let script = "#!/bin/sh\nkept=\"$(dirname \"$0\")/kept\"\ncase $1 in\nstore) cat >\"$kept\";;\n\
        get) cat >/dev/null; [ -e \"$kept\" ] || { echo credentials not found in native keychain; exit 1; }; cat \"$kept\";;\n\
        erase) rm \"$kept\";;\nesac\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let config = r#"{"credsStore":"test"}"#;
    fs::write(docker.path().join("config.json"), config).unwrap();

    let stored = log_in(&kiln, docker.path(), &registry, Registry::PASSWORD);
    assert_eq!(stored.status.code(), Some(0), "{}", stored.stderr);
    assert!(!stored.stderr.contains("unencrypted"), "{}", stored.stderr);
    assert_eq!(fs::read_to_string(docker.path().join("config.json")).unwrap(), config);
    assert!(fs::read_to_string(docker.path().join("kept")).unwrap().contains("\"Username\":\"robot\""));
    run(&kiln, docker.path(), &["login", &registry.host], "").says(&["[robot]", "Login Succeeded"]);
    run(&kiln, docker.path(), &["logout", &registry.host], "").says(&["Removed the login"]);
    run(&kiln, docker.path(), &["logout", &registry.host], "").says(&["Not logged in"]);
}

#[test]
fn what_cannot_be_asked_is_said() {
    let kiln = Kiln::with_config("");
    let docker = tempfile::tempdir().unwrap();
    let check = |args: &[&str], expect: &str| {
        let finished = run(&kiln, docker.path(), args, "");
        assert!(!finished.status.success());
        assert!(finished.stderr.contains(expect), "{args:?}: {}", finished.stderr);
    };
    check(&["login", "127.0.0.1:1"], "no terminal");
    check(&["login", "127.0.0.1:1", "-u", "me", "--password-stdin"], "the password is empty");
    check(&["login", "127.0.0.1:1", "-u", "me", "-p", "x"], "cannot connect to");
    check(&["login", "quay.io/org", "-u", "me", "-p", "x"], "a login is for a whole registry");
    check(&["login", "127.0.0.1:1", "--password-stdin"], "--username");
}

#[test]
fn passwords_are_asked_for_on_the_terminal_and_not_shown() {
    let registry = Registry::start_guarded().unwrap();
    let kiln = Kiln::with_config("");
    let docker = tempfile::tempdir().unwrap();
    let mut command = kiln.command_through(&["setsid", "--ctty"], "login");
    command.arg(&registry.host).env("DOCKER_CONFIG", docker.path());
    let mut terminal = harness::Terminal::start(command);
    terminal.wait_for("Username for");
    terminal.send("robot\n");
    terminal.wait_for("Password: ");
    terminal.send("wrong\x7f\x7f\x7f\x7f\x7fsecret\n");
    terminal.wait_for("Login Succeeded");
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(docker.path().join("config.json").exists());
}
