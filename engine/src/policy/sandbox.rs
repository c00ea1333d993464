//! Wasmtime, set up for small, reproducible, bounded calls: a fresh store and instance for each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use steadfast_sdk::abi::{ALLOC, Envelope, IMPORTS, INIT, MARKER};
use wasmtime::{
    Caller, Config, Engine, Extern, Instance, InstancePre, Linker, Memory, Module, OptLevel,
    ResourceLimiter, Store, Trap, TypedFunc,
};

use super::ticker::{EPOCH_MS, Ticker};
use super::{Class, Failure, Kind, Limits, Stage};

const REBUILD: &str = "build it with steadfast_sdk::export_policy! for wasm32-unknown-unknown";
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
}

/// What a call left behind besides its result.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    /// Fuel used, by instantiation and parameters too.
    pub(super) fuel: u64,
    /// Largest linear memory in bytes.
    pub(super) memory_bytes: usize,
}

/// The host's side of one instance.
struct Guest {
    limits: Arc<Limits>,
    memory_bytes: usize,
    log_lines: usize,
    last_words: Option<String>,
    fault: Option<Failure>,
}

impl Sandbox {
    pub(super) fn new(limits: Limits) -> anyhow::Result<Self> {
        let engine = Engine::new(&config(&limits)).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        linker.func_wrap(IMPORTS, "log", log).map_err(failed)?;
        linker
            .func_wrap(IMPORTS, "log_level", |_: Caller<'_, Guest>| -> i32 { log_level() })
            .map_err(failed)?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Self { engine, linker, ticker, limits: Arc::new(limits) })
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
            Ok(Program { ready })
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

    /// Asks the program one question; the answer is bytes.
    pub(super) fn call<V: DeserializeOwned>(
        &self,
        program: &Program,
        kind: Kind,
        parameters: &[u8],
        input: &[u8],
    ) -> Result<(V, Usage), Failure> {
        guarded(Stage::Call, || {
            let mut call = Call::start(self, program, parameters, input.len())?;
            let bytes = call.exchange(Stage::Call, kind.export(), input)?;
            Ok((decode(Stage::Call, &bytes)?, call.usage()))
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
        let bytes = call.exchange(Stage::Init, INIT, parameters)?;
        decode::<()>(Stage::Init, &bytes)?;
        Ok(call)
    }

    /// Writes the input, calls the export, reads what it returns.
    fn exchange(&mut self, stage: Stage, export: &str, input: &[u8]) -> Result<Vec<u8>, Failure> {
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
        self.read(stage, packed)
    }

    fn read(&self, stage: Stage, packed: u64) -> Result<Vec<u8>, Failure> {
        let half = |shift: u32| u32::try_from(packed >> shift & 0xffff_ffff).unwrap_or(u32::MAX);
        let (at, len) = (half(32), half(0));
        let most = self.store.data().limits.output_bytes;
        if len as usize > most {
            let reason = format!("the result has {len} bytes, allowed are {most}");
            return Err(Failure::new(stage, Class::BadOutput, reason, SHRINK));
        }
        let (from, to) = (at as usize, at as usize + len as usize);
        let bytes = self.memory.data(&self.store).get(from..to);
        bytes.map(<[u8]>::to_vec).ok_or_else(|| out_of_memory(stage, at, len))
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
        Usage { fuel: self.fuel.saturating_sub(left), memory_bytes: self.store.data().memory_bytes }
    }
}

impl Guest {
    fn new(limits: &Arc<Limits>) -> Self {
        let limits = Arc::clone(limits);
        Self { limits, memory_bytes: 0, log_lines: 0, last_words: None, fault: None }
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

fn log_level() -> i32 {
    if tracing::enabled!(target: "steadfast::policy", tracing::Level::DEBUG) { 4 } else { 3 }
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

fn decode<V: DeserializeOwned>(stage: Stage, bytes: &[u8]) -> Result<V, Failure> {
    match serde_json::from_slice(bytes) {
        Ok(Envelope::Ok(value)) => Ok(value),
        Ok(Envelope::Err(error)) => {
            let reason = format!("the policy refuses: {}: {}", error.code, error.message);
            let remedy = match stage {
                Stage::Init => {
                    "correct the .json beside the .wasm: its manifest lists the parameters"
                }
                _ => "see the policy's documentation",
            };
            Err(Failure::new(stage, Class::GuestError, reason, remedy))
        }
        Err(error) => {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            let reason = format!("its result is not a verdict: {error}; it begins with {shown:?}");
            Err(Failure::new(stage, Class::BadOutput, reason, REBUILD))
        }
    }
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
