//! Wasmtime, set up for small, reproducible, bounded calls: a fresh store and instance for each.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use steadfast_sdk::abi::{self, ALLOC, Envelope, GuestError, IMPORTS, INIT, MARKER, Wire};
use steadfast_sdk::log::Level;
use steadfast_sdk::manifest::Manifest;
use wasmtime::{
    Caller, Config, Engine, Extern, Instance, InstancePre, Linker, Memory, Module, OptLevel,
    ResourceLimiter, Store, Trap, TypedFunc,
};

use super::arena::Arenas;
use super::kind::Question;
use super::load::encode;
use super::ticker::{EPOCH_MS, Ticker};
use super::{Class, Failure, Kind, Limits, Stage, verdict};

const REBUILD: &str = "build it with steadfast_sdk::export_policy! for wasm32-unknown-unknown";
/// So many words on its progress are heard in a call.
const PHASES: usize = 16;
const SHRINK: &str = "make the policy use less, or raise the limit in the agent's configuration";

/// The engine that all policies share.
pub(super) struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    ticker: Ticker,
    limits: Arc<Limits>,
}

/// A compiled module, ready to be instantiated for a call.
#[derive(Clone)]
pub(super) struct Program {
    ready: InstancePre<Guest>,
    in_columns: bool,
}

impl Program {
    /// Asks it in the encoding that its manifest names, if this agent knows that.
    pub(super) fn speaking(self, manifest: &Manifest) -> Self {
        Self { in_columns: manifest.reads_columns(), ..self }
    }

    /// The same, asked in JSON.
    pub(super) fn in_json(&self) -> Self {
        Self { in_columns: false, ..self.clone() }
    }
}

/// What a call left behind besides its result.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    /// Fuel used, by instantiation and parameters too.
    pub(super) fuel: u64,
    /// Largest linear memory in bytes.
    pub(super) memory_bytes: usize,
    /// Size of the question as it was asked, in bytes. Fuel is allowed by it.
    pub(super) question_bytes: usize,
    /// Size of the verdict as it was given, in bytes.
    pub(super) verdict_bytes: usize,
    pub(super) times: Times,
}

/// When a call had come how far, since its begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// The question is bytes.
    pub(super) encoded: Duration,
    /// There is an instance that has read its parameters.
    pub(super) started: Duration,
    /// What the module said of its own progress: only if it was asked to.
    pub(super) phases: Vec<(String, Duration)>,
    /// The module has returned.
    pub(super) returned: Duration,
    /// The verdict is read.
    pub(super) decoded: Duration,
    /// The verdict is checked.
    pub(super) checked: Duration,
}

/// The host's side of one instance.
struct Guest {
    limits: Arc<Limits>,
    memory_bytes: usize,
    log_lines: usize,
    last_words: Option<String>,
    fault: Option<Failure>,
    /// Since when, and what was heard of its progress; `None`: nobody wants to know.
    progress: Option<(Instant, Vec<(String, Duration)>)>,
}

impl Sandbox {
    pub(super) fn new(limits: Limits) -> anyhow::Result<Self> {
        let engine = Engine::new(&config(&limits)).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        linker.func_wrap(IMPORTS, "log", log).map_err(failed)?;
        linker
            .func_wrap(IMPORTS, "log_level", |it: Caller<'_, Guest>| it.data().log_level())
            .map_err(failed)?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Self { engine, linker, ticker, limits: Arc::new(limits) })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Compiles a module and checks its imports and exports. Takes long: only on the loading thread.
    pub(super) fn compile(&self, wasm: &[u8], kinds: &[Kind]) -> Result<Program, Failure> {
        guarded(Stage::Compile, || {
            let module = Module::new(&self.engine, wasm).map_err(|error| {
                let reason = format!("it does not compile: {error:#}");
                Failure::refused(Stage::Compile, reason, REBUILD)
            })?;
            imports(&module)?;
            exports(&module, kinds)?;
            let ready = self.linker.instantiate_pre(&module).map_err(|error| {
                let reason = format!("an import has another type: {error:#}");
                Failure::refused(Stage::Compile, reason, REBUILD)
            })?;
            Ok(Program { ready, in_columns: false })
        })
    }

    /// Instantiates the program and does nothing with it.
    pub(super) fn instantiate(&self, program: &Program) -> Result<(), Failure> {
        guarded(Stage::Instantiate, || {
            let _ticking = self.ticker.run();
            let mut store = Call::store(self, self.limits.fuel_for(0))?;
            match program.ready.instantiate(&mut store) {
                Ok(_) => Ok(()),
                Err(error) => Err(classify(Stage::Instantiate, &mut store, &error)),
            }
        })
    }

    /// Instantiates the program, gives it its parameters, and asks nothing.
    pub(super) fn init(&self, program: &Program, parameters: &[u8]) -> Result<Usage, Failure> {
        guarded(Stage::Init, || {
            let mut call = Call::start(self, program, parameters, 0)?;
            Ok(call.usage())
        })
    }

    /// Asks the program one question and checks the verdict.
    pub(super) fn ask<Q: Question>(
        &self,
        program: &Program,
        parameters: &[u8],
        question: &Q,
    ) -> Result<(Q::Verdict, Usage), Failure> {
        self.observe(program, parameters, question, false)
    }

    /// As [`Sandbox::ask`]; the module is to say when it has come how far.
    pub(super) fn observe<Q: Question>(
        &self,
        program: &Program,
        parameters: &[u8],
        question: &Q,
        phases: bool,
    ) -> Result<(Q::Verdict, Usage), Failure> {
        guarded(Stage::Call, || {
            let begin = Instant::now();
            let columns = if program.in_columns { question.to_columns() } else { None };
            let input = columns.map_or_else(|| encode(question), Ok)?;
            let encoded = begin.elapsed();
            let mut call = Call::start(self, program, parameters, input.len())?;
            call.store.data_mut().progress = phases.then(|| (begin, Vec::new()));
            let started = begin.elapsed();
            let result = call.exchange(Stage::Call, Q::DECIDES.export(), &input)?;
            let returned = begin.elapsed();
            let verdict = read(question, &call.memory.data(&call.store)[result.clone()])?;
            let decoded = begin.elapsed();
            verdict::check(question, &verdict)?;
            let phases = call.store.data_mut().progress.take().unwrap_or((begin, Vec::new())).1;
            let checked = begin.elapsed();
            let times = Times { encoded, started, phases, returned, decoded, checked };
            let (question_bytes, verdict_bytes) = (input.len(), result.len());
            Ok((verdict, Usage { question_bytes, verdict_bytes, times, ..call.usage() }))
        })
    }
}

fn config(limits: &Limits) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        // Linear memory: reserved as large as it may become, so that it never moves; no 4 GiB of address
        // space, which `mlockall` would count.
        .memory_reservation(limits.memory_bytes as u64)
        .memory_reservation_for_growth(0)
        .memory_guard_size(64 << 10)
        .with_host_memory(Arc::new(Arenas::default()))
        .memory_init_cow(false)
        // Nothing that costs memory and only helps debuggers: a panic's message comes through the log.
        .generate_address_map(false)
        .wasm_backtrace_max_frames(None);
    config
}

/// One instance, from its creation to its end.
struct Call<'a> {
    store: Store<Guest>,
    instance: Instance,
    memory: Memory,
    fuel: u64,
    _ticking: super::ticker::Ticking<'a>,
}

impl<'a> Call<'a> {
    /// An empty store under the limits.
    fn store(sandbox: &Sandbox, fuel: u64) -> Result<Store<Guest>, Failure> {
        let mut store = Store::new(&sandbox.engine, Guest::new(&sandbox.limits));
        store.limiter(|guest| guest);
        store.set_epoch_deadline(sandbox.limits.wall_ms / EPOCH_MS + 1);
        store.set_fuel(fuel).map_err(|error| host(Stage::Instantiate, &error))?;
        Ok(store)
    }

    /// A fresh instance with its parameters read, and fuel for an input of so many bytes.
    fn start(
        sandbox: &'a Sandbox,
        program: &Program,
        parameters: &[u8],
        input_bytes: usize,
    ) -> Result<Self, Failure> {
        let ticking = sandbox.ticker.run();
        let fuel = sandbox.limits.fuel_for(input_bytes);
        let mut store = Self::store(sandbox, fuel)?;
        let instance = program.ready.instantiate(&mut store);
        let instance =
            instance.map_err(|error| classify(Stage::Instantiate, &mut store, &error))?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or_else(|| Failure::refused(Stage::Instantiate, "it exports no memory", REBUILD))?;
        let mut call = Self { store, instance, memory, fuel, _ticking: ticking };
        let result = call.exchange(Stage::Init, INIT, parameters)?;
        initialised(&call.memory.data(&call.store)[result])?;
        Ok(call)
    }

    /// Writes the input, calls the export; returns where in the memory the result is.
    fn exchange(
        &mut self,
        stage: Stage,
        export: &str,
        input: &[u8],
    ) -> Result<Range<usize>, Failure> {
        let len = u32::try_from(input.len()).map_err(|_| {
            Failure::new(stage, Class::Host, "the question has more than 4 GiB", SHRINK)
        })?;
        let alloc: TypedFunc<u32, u32> = self.function(stage, ALLOC)?;
        let ask: TypedFunc<(u32, u32), u64> = self.function(stage, export)?;
        let to = alloc.call(&mut self.store, len).map_err(|error| self.trapped(stage, &error))?;
        self.memory
            .write(&mut self.store, to as usize, input)
            .map_err(|_| out_of_memory(stage, to, len))?;
        let packed =
            ask.call(&mut self.store, (to, len)).map_err(|error| self.trapped(stage, &error))?;
        self.result(stage, packed)
    }

    fn result(&self, stage: Stage, packed: u64) -> Result<Range<usize>, Failure> {
        let half = |shift: u32| u32::try_from(packed >> shift & 0xffff_ffff).unwrap_or(u32::MAX);
        let (at, len) = (half(32), half(0));
        let most = self.store.data().limits.output_bytes;
        if len as usize > most {
            let reason = format!("the result has {len} bytes, allowed are {most}");
            return Err(Failure::new(stage, Class::BadOutput, reason, SHRINK));
        }
        let (from, to) = (at as usize, at as usize + len as usize);
        if to > self.memory.data_size(&self.store) {
            return Err(out_of_memory(stage, at, len));
        }
        Ok(from..to)
    }

    fn function<P, R>(&mut self, stage: Stage, name: &str) -> Result<TypedFunc<P, R>, Failure>
    where
        P: wasmtime::WasmParams,
        R: wasmtime::WasmResults,
    {
        self.instance.get_typed_func(&mut self.store, name).map_err(|error| {
            let reason = format!("the export {name:?} has another type: {error:#}");
            Failure::refused(stage, reason, REBUILD)
        })
    }

    fn trapped(&mut self, stage: Stage, error: &wasmtime::Error) -> Failure {
        classify(stage, &mut self.store, error)
    }

    fn usage(&mut self) -> Usage {
        let left = self.store.get_fuel().unwrap_or(0);
        let fuel = self.fuel.saturating_sub(left);
        Usage { fuel, memory_bytes: self.store.data().memory_bytes, ..Usage::default() }
    }
}

impl Guest {
    fn new(limits: &Arc<Limits>) -> Self {
        let limits = Arc::clone(limits);
        let (memory_bytes, log_lines) = (0, 0);
        let (last_words, fault, progress) = (None, None, None);
        Self { limits, memory_bytes, log_lines, last_words, fault, progress }
    }

    fn log_level(&self) -> i32 {
        let debug = tracing::enabled!(target: "steadfast::policy", tracing::Level::DEBUG);
        match self.progress {
            Some(_) => Level::Phase as i32,
            None if debug => Level::Debug as i32,
            None => Level::Info as i32,
        }
    }

    fn too_much(&mut self, what: &str, desired: usize, most: usize) -> wasmtime::Error {
        let reason = format!("it wants {desired} {what}, allowed are {most}");
        self.fault = Some(Failure::new(Stage::Call, Class::Memory, reason, SHRINK));
        wasmtime::Error::msg("limit of memory or tables")
    }

    fn hear(&mut self, level: i32, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if level <= 0 {
            self.last_words = Some(line.into_owned());
        } else if level >= Level::Phase as i32 {
            if let Some((begin, phases)) = self.progress.as_mut().filter(|it| it.1.len() < PHASES) {
                phases.push((line.into_owned(), begin.elapsed()));
            }
        } else if self.log_lines < self.limits.log_lines {
            self.log_lines += 1;
            tracing::info!(target: "steadfast::policy", level, %line, "policy says");
        }
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let most = self.limits.memory_bytes;
        if desired > most {
            return Err(self.too_much("bytes of memory", desired, most));
        }
        self.memory_bytes = self.memory_bytes.max(desired);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let most = self.limits.table_elements;
        if desired > most {
            return Err(self.too_much("table elements", desired, most));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }
}

fn log(mut caller: Caller<'_, Guest>, level: i32, at: u32, len: u32) -> wasmtime::Result<()> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::Error::msg("no memory to read a log line from"));
    };
    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
    let len = (len as usize).min(guest.limits.log_line_bytes);
    let line = bytes.get(at as usize..(at as usize).saturating_add(len));
    guest.hear(level, line.unwrap_or(b"(a log line outside of the memory)"));
    Ok(())
}

fn imports(module: &Module) -> Result<(), Failure> {
    let known =
        |module: &str, name: &str| module == IMPORTS && ["log", "log_level"].contains(&name);
    let Some(other) = module.imports().find(|it| !known(it.module(), it.name())) else {
        return Ok(());
    };
    let reason = format!("it imports {:?} from {:?}", other.name(), other.module());
    let remedy = if other.module().starts_with("wasi") {
        "WASI is not offered: build for wasm32-unknown-unknown, not for wasm32-wasi*"
    } else {
        "a policy has only the log: drop crates that need a host (clocks, random numbers, JavaScript)"
    };
    Err(Failure::refused(Stage::Compile, reason, remedy))
}

fn exports(module: &Module, kinds: &[Kind]) -> Result<(), Failure> {
    let has = |name: &str| module.get_export(name).is_some();
    let needed = ["memory", MARKER, ALLOC, INIT].into_iter();
    let missing = needed.chain(kinds.iter().map(|kind| kind.export())).find(|name| !has(name));
    if let Some(name) = missing {
        return Err(Failure::refused(
            Stage::Compile,
            format!("it does not export {name:?}"),
            REBUILD,
        ));
    }
    match Kind::ALL.into_iter().find(|kind| !kinds.contains(kind) && has(kind.export())) {
        Some(kind) => {
            let reason = format!("it exports {:?} but its manifest is silent on it", kind.export());
            Err(Failure::refused(Stage::Compile, reason, REBUILD))
        }
        None => Ok(()),
    }
}

fn initialised(bytes: &[u8]) -> Result<(), Failure> {
    match serde_json::from_slice(bytes) {
        Ok(Envelope::Ok(())) => Ok(()),
        Ok(Envelope::Err(error)) => Err(refuses(Stage::Init, &error)),
        Err(error) => Err(no_result(Stage::Init, bytes, &error.to_string())),
    }
}

fn read<Q: Wire>(question: &Q, bytes: &[u8]) -> Result<Q::Verdict, Failure> {
    match abi::read_answer(question, bytes) {
        Ok(Ok(verdict)) => Ok(verdict),
        Ok(Err(error)) => Err(refuses(Stage::Call, &error)),
        Err(error) => Err(no_result(Stage::Call, bytes, &error)),
    }
}

fn refuses(stage: Stage, error: &GuestError) -> Failure {
    let reason = format!("the policy refuses: {}: {}", error.code, error.message);
    let remedy = match stage {
        Stage::Init => "correct the .json beside the .wasm: its manifest lists the parameters",
        _ => "see the policy's documentation",
    };
    Failure::new(stage, Class::GuestError, reason, remedy)
}

fn no_result(stage: Stage, bytes: &[u8], error: &str) -> Failure {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let reason = format!("its result is not a verdict: {error}; it begins with {shown:?}");
    Failure::new(stage, Class::BadOutput, reason, REBUILD)
}

/// Why a call ended early. What the host's side noted comes first: the trap is only its consequence.
fn classify(stage: Stage, store: &mut Store<Guest>, error: &wasmtime::Error) -> Failure {
    let guest = store.data_mut();
    if let Some(fault) = guest.fault.take() {
        return fault.at(stage);
    }
    let Some(trap) = error.downcast_ref::<Trap>() else { return host(stage, error) };
    let (class, reason, remedy) = match trap {
        Trap::OutOfFuel => (
            Class::TimeoutFuel,
            "it used up its fuel".to_string(),
            "look for an endless loop; else raise the limits fuel and fuel_per_byte",
        ),
        Trap::Interrupt => (
            Class::TimeoutWall,
            format!("it was still running after {} ms", guest.limits.wall_ms),
            "look for an overloaded machine; else lower fuel or raise wall_ms",
        ),
        Trap::StackOverflow => {
            let reason = format!("it needs more than {} bytes of stack", guest.limits.stack_bytes);
            (Class::Stack, reason, "look for endless recursion")
        }
        _ => {
            let words = guest.last_words.take().unwrap_or_else(|| trap.to_string());
            (Class::Panic, words, "correct the policy: it must answer every question")
        }
    };
    Failure::new(stage, class, reason, remedy)
}

fn out_of_memory(stage: Stage, at: u32, len: u32) -> Failure {
    let reason = format!("it names {len} bytes at {at}, which is outside of its memory");
    Failure::new(stage, Class::BadOutput, reason, REBUILD)
}

fn host(stage: Stage, error: &wasmtime::Error) -> Failure {
    Failure::new(stage, Class::Host, format!("{error:#}"), "report it as a fault of the agent")
}

/// A panic of the host's side becomes a failure of this one policy.
fn guarded<T>(stage: Stage, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let reason = format!("the host panicked: {words}");
        Err(Failure::new(stage, Class::Host, reason, "report it as a fault of the agent"))
    })
}

fn failed(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}").context("setting up the sandbox of policies")
}
