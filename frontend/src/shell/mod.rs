//! Shell text -> the commands in it, as data, for build checks. Runs nothing and expands nothing; what a command means
//! is the business of `lint/own`.
//!
//! The reading itself is in `lex.rs`, that of words in `lex/word.rs`; `invocation.rs` looks through `sudo`, `env` and
//! their kin to the program that is meant. What is read is the language of POSIX shells and what bash adds to it, as far
//! as it decides where a command begins and which words it has. Text that is no shell at all gives some commands or
//! none, never an error: a check may then say nothing, and the shell will say what is wrong when the step runs.

mod invocation;
mod lex;

pub use invocation::Invocation;
use std::collections::HashMap;

/// A shell text, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// All commands, also those in subshells, substitutions and texts for other shells (`sh -c '…'`), in the order in
    /// which they were found: those in texts for other shells come last.
    pub commands: Vec<Command>,
    /// Bodies of here-documents; [`Command::documents`] has positions in it.
    pub documents: Vec<Document>,
    /// Comments, each with its `#`, to the end of the line.
    pub comments: Vec<String>,
}

/// A simple command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments; without redirections, and without assignments before the program. Empty for a subshell
    /// (its commands have their own list), or where there are only assignments or redirections.
    pub words: Vec<Word>,
    /// `NAME=value` before the program.
    pub assignments: Vec<(String, Word)>,
    /// How it follows the command before it in the same list.
    pub join: Join,
    /// Which list of commands it belongs to. 0 is the text itself; each subshell, substitution and nested text has its
    /// own.
    pub list: usize,
    /// Targets of redirections, and their operators such as `>>`.
    pub redirections: Vec<(String, Word)>,
    /// Here-documents that it reads.
    pub documents: Vec<usize>,
}

/// How a command follows another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Join {
    /// It is the first of its list, or comes after `;`, `&` or a newline.
    #[default]
    Sequence,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `|`: it reads what the other writes.
    Pipe,
}

/// A word of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Quotes and escapes removed; expansions stand as written.
    pub text: String,
    /// Variables that it uses.
    pub variables: Vec<Variable>,
    /// It has an expansion or substitution: the program sees another text.
    pub is_dynamic: bool,
    /// Some of it is quoted or escaped.
    pub is_quoted: bool,
}

/// A use of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Without `$` and braces.
    pub name: String,
    /// The expansion says what happens where it is not set: `${x:-y}`, `${x+y}`, `${x?y}`, `${x=y}`.
    pub is_guarded: bool,
}

/// A here-document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Without the line that ends it.
    pub body: String,
    /// Variables that it uses; none if the delimiter is quoted.
    pub variables: Vec<Variable>,
}

/// Texts within texts (`sh -c "sh -c …"`) are followed this far.
const MAX_NESTED_TEXTS: usize = 3;

impl Script {
    /// Reads a text.
    pub fn parse(text: &str) -> Script {
        let mut script = Script::default();
        let mut lists = 1;
        lex::read(text, 0, &mut lists, &mut script);
        script.follow_nested(0, lists);
        script
    }

    /// The commands of an exec form.
    pub fn of_exec(words: &[String]) -> Script {
        let word = |text: &String| Word { text: text.clone(), is_quoted: true, ..Word::default() };
        let command = Command { words: words.iter().map(word).collect(), ..Command::default() };
        let mut script = Script { commands: vec![command], ..Script::default() };
        script.follow_nested(0, 1);
        script
    }

    /// Adds the commands of texts that commands hand to a shell.
    fn follow_nested(&mut self, mut from: usize, mut lists: usize) {
        for _ in 0..MAX_NESTED_TEXTS {
            let until = self.commands.len();
            let texts: Vec<String> = (from..until).flat_map(|index| self.texts_for_shells(index)).collect();
            for text in texts {
                let list = lists;
                lists += 1;
                lex::read(&text, list, &mut lists, self);
            }
            from = until;
        }
    }

    /// What a command hands to a shell: `sh -c TEXT`, `eval TEXT`, `su -c TEXT`, `sh <<EOF`.
    fn texts_for_shells(&self, index: usize) -> Vec<String> {
        let command = &self.commands[index];
        let Some(invocation) = command.invocation() else { return vec![] };
        let args = invocation.args;
        if invocation.program == "eval" {
            let words: Vec<&str> = args.iter().map(|word| word.text.as_str()).collect();
            return vec![words.join(" ")];
        }
        if !is_shell(invocation.program) && !["su", "runuser"].contains(&invocation.program) {
            return vec![];
        }
        let is_text_flag = |word: &Word| match word.text.strip_prefix('-') {
            Some(flags) => flags.ends_with('c') && !flags.starts_with('-') || flags == "-command",
            None => false,
        };
        if let Some(at) = args.iter().position(is_text_flag) {
            return args.get(at + 1).map(|word| word.text.clone()).into_iter().collect();
        }
        let reads_input = is_shell(invocation.program) && args.iter().all(|word| word.text.starts_with('-'));
        let documents = command.documents.iter().filter(|_| reads_input);
        documents.filter_map(|document| self.documents.get(*document)).map(|document| document.body.clone()).collect()
    }

    /// The programs that are run, `sudo`, `env` and their kin looked through.
    pub fn invocations(&self) -> impl Iterator<Item = Invocation<'_>> {
        self.commands.iter().filter_map(Command::invocation)
    }

    /// Commands that are joined by `|`, as positions; also those that stand alone.
    pub fn pipelines(&self) -> Vec<Vec<usize>> {
        let mut pipelines: Vec<Vec<usize>> = vec![];
        let mut last_of_list: HashMap<usize, usize> = HashMap::new();
        for (index, command) in self.commands.iter().enumerate() {
            match last_of_list.get(&command.list) {
                Some(&pipeline) if command.join == Join::Pipe => pipelines[pipeline].push(index),
                _ => {
                    last_of_list.insert(command.list, pipelines.len());
                    pipelines.push(vec![index]);
                }
            }
        }
        pipelines
    }

    /// The last command of the text itself.
    pub fn last(&self) -> Option<&Command> {
        self.commands.iter().rfind(|command| command.list == 0)
    }

    /// All uses of variables, here-documents included.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        let of_commands = self.commands.iter().flat_map(|command| {
            let assigned = command.assignments.iter().map(|(_, word)| word);
            let redirected = command.redirections.iter().map(|(_, word)| word);
            command.words.iter().chain(assigned).chain(redirected).flat_map(|word| &word.variables)
        });
        of_commands.chain(self.documents.iter().flat_map(|document| &document.variables))
    }
}

impl Command {
    /// The program that is meant; `None` where the command has no words, or its program is not known before it runs.
    pub fn invocation(&self) -> Option<Invocation<'_>> {
        Invocation::of(self)
    }
}

/// Whether a program is a shell that reads this language.
pub fn is_shell(program: &str) -> bool {
    ["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"].contains(&program)
}

#[cfg(test)]
mod tests;
