/* An example to copy: a risk policy in C, against the bare ABI. No library, not even libc's.
 *
 * A node is at risk as its hottest part comes within ten degrees of critical. The ABI in a few words
 * (sdk/RATIONALE.md has the reasons): the host asks for memory (steadfast_alloc), writes JSON there and
 * calls an export with it; the answer is JSON too, as `pointer << 32 | length`. Nothing is ever freed:
 * each call has an instance of its own.
 *
 * Whoever reads JSON by hand: skip values as a whole, or a label that looks like a key will fool you;
 * fields may be added, so ignore what you do not know. */

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define EXPORT(name) __attribute__((export_name(name)))
#define STALE_MS 600000
#define WARM_C 10
#define POINTS 700

/* What the policy says of itself: one line of JSON in the custom section `steadfast:manifest`. Its
 * kinds must equal the exports. */
__asm__(".section \".custom_section.steadfast:manifest\",\"\",@\n"
        ".ascii \"{\\\"abi\\\":1,\\\"name\\\":\\\"thermal\\\",\\\"version\\\":\\\"0.1.0\\\",\"\n"
        ".ascii \"\\\"about\\\":\\\"A node is at risk as its hottest part nears critical.\\\",\"\n"
        ".ascii \"\\\"kinds\\\":[\\\"risk\\\"],\\\"parameters\\\":[]}\"\n"
        ".text\n");

/* Memory: handed out in a row, from where the linker says that it begins. */
extern unsigned char __heap_base;
static u32 next;

EXPORT("steadfast_alloc") void *steadfast_alloc(u32 length) {
    u32 from = ((next ? next : (u32)&__heap_base) + 15) & ~15u;
    u64 end = (u64)from + length, have = (u64)__builtin_wasm_memory_size(0) << 16;
    if (end > have && __builtin_wasm_memory_grow(0, (u32)((end - have + 65535) >> 16)) == (u32)-1)
        __builtin_trap();
    next = (u32)end;
    return (void *)from;
}

EXPORT("steadfast_policy_abi_1") void steadfast_policy_abi_1(void) {}

/* Answers. Long enough for any of them. */
static char answer[256];
static u32 length;

static void put(const char *text) {
    while (*text && length < sizeof answer) answer[length++] = *text++;
}

static void put_number(u32 number) {
    if (number >= 10) put_number(number / 10);
    if (length < sizeof answer) answer[length++] = (char)('0' + number % 10);
}

static u64 give(void) { return (u64)(u32)answer << 32 | length; }

static u64 refuse(const char *code, const char *message) {
    length = 0;
    put("{\"err\":{\"code\":\""), put(code);
    put("\",\"message\":\""), put(message), put("\"}}");
    return give();
}

/* JSON: a cursor that goes over it once. `bad` stays set; whoever reads checks it at the end. */
static const char *at, *end;
static int bad;

static void space(void) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
}

static int take(char wanted) {
    space();
    if (at == end || *at != wanted) return 0;
    at++;
    return 1;
}

struct text { const char *from; u32 length; };

/* A string as it stands there, escapes and all. */
static struct text string(void) {
    if (!take('"')) { bad = 1; return (struct text){at, 0}; }
    const char *from = at;
    while (at < end && *at != '"') at += *at == '\\' && end - at > 1 ? 2 : 1;
    struct text found = {from, (u32)(at - from)};
    if (!take('"')) bad = 1;
    return found;
}

static int is(struct text text, const char *word) {
    u32 same = 0;
    while (same < text.length && word[same] == text.from[same]) same++;
    return same == text.length && !word[same];
}

static int begins(struct text text, const char *word) {
    for (u32 i = 0; word[i]; i++) if (i == text.length || text.from[i] != word[i]) return 0;
    return 1;
}

static int ends(struct text text, const char *word) {
    u32 many = 0;
    while (word[many]) many++;
    return many <= text.length && is((struct text){text.from + text.length - many, many}, word);
}

/* A whole number; what is too large is cut. */
static i64 number(void) {
    int below = take('-');
    i64 value = 0;
    space();
    if (at == end || *at < '0' || *at > '9') bad = 1;
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        if (value < (i64)1 << 58) value = value * 10 + (*at - '0');
    return below ? -value : value;
}

static int is_mark(char letter) {
    for (const char *mark = "{}[],:"; *mark; mark++) if (*mark == letter) return 1;
    return 0;
}

/* Any value, with all that is in it. */
static void skip(void) {
    u32 depth = 0;
    do {
        space();
        if (at == end) { bad = 1; return; }
        if (*at == '"') { string(); continue; }
        if (*at == '{' || *at == '[') depth++;
        if (*at == '}' || *at == ']') depth--;
        if (is_mark(*at)) at++;
        else while (at < end && !is_mark(*at)) at++;
    } while (depth && !bad);
}

/* Goes to the next key of an object; `first` is 1 before the first. 0: there is none, or it is bad. */
static int key(struct text *name, int *first) {
    if (*first) {
        *first = 0;
        if (!take('{')) bad = 1;
        if (bad || take('}')) return 0;
    } else if (!take(',')) {
        if (!take('}')) bad = 1;
        return 0;
    }
    *name = string();
    if (!take(':')) bad = 1;
    return !bad;
}

/* The points of one reading. */
static u32 reading(void) {
    struct text field, name = {at, 0};
    i64 value = 0, age = 0;
    for (int first = 1; key(&field, &first);) {
        if (is(field, "name")) name = string();
        else if (is(field, "value")) value = number();
        else if (is(field, "age_ms")) age = number();
        else skip();
    }
    int counts = begins(name, "temperature.") && ends(name, ".below_critical_c") && age <= STALE_MS;
    if (!counts || value >= WARM_C) return 0;
    return value <= 0 ? POINTS : (u32)((WARM_C - value) * POINTS / WARM_C);
}

static u32 hottest(void) {
    u32 most = 0;
    if (!take('[')) { bad = 1; return 0; }
    if (take(']')) return 0;
    do {
        u32 points = reading();
        if (points > most) most = points;
    } while (take(',') && !bad);
    if (!take(']')) bad = 1;
    return most;
}

static void begin(const char *json, u32 many) {
    at = json, end = json + many;
    bad = 0, length = 0;
}

EXPORT("steadfast_init") u64 steadfast_init(const char *json, u32 many) {
    begin(json, many);
    space();
    if (at != end && !(take('{') && take('}'))) return refuse("bad_parameters", "thermal has none");
    put("{\"ok\":null}");
    return give();
}

EXPORT("steadfast_risk") u64 steadfast_risk(const char *json, u32 many) {
    struct text field;
    u32 points = 0;
    begin(json, many);
    for (int first = 1; key(&field, &first);)
        if (is(field, "telemetry")) points = hottest();
        else skip();
    if (bad) return refuse("bad_question", "not the JSON of a risk question");
    put("{\"ok\":{\"score\":{\"value\":"), put_number(points);
    if (points) {
        put(",\"terms\":[{\"name\":\"near critical\",\"value\":"), put_number(points), put("}]");
    }
    put("}}}");
    return give();
}
