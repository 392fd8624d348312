/* The scan of agent/json.h over simdjson's on-demand API.
 *
 * On-demand parsing checks only what is asked for, and skips the rest by counting brackets. A judge can't afford
 * that: what it skips, another parser may read. So every value is visited: containers by iteration (which checks
 * commas, colons and brackets), strings for their escapes, other scalars by their grammar. Stage 1 has checked UTF-8,
 * control characters in strings and that strings end. Nothing is converted: a number stays the text that it is.
 *
 * It stands in filters/ and not in filters/agent/ because only C++ files on a module's top level are built. */
#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

#include <cstring>
#include <new>
#include <string_view>
#include <vector>

#include "agent/json.h"
#include "agent/json_text.hpp"

namespace ondemand = simdjson::ondemand;

static_assert(EP_SCAN_PADDING >= simdjson::SIMDJSON_PADDING, "the callers leave too little room");

namespace
{

constexpr size_t keep_bytes = 256 * 1024; /* a parser that grew beyond this is dropped after use */
constexpr size_t few_keys = 8;            /* up to here each is compared with each */

enum level { MESSAGE, PARAMS, META, ROUTING, A2A_MESSAGE, A2A_METADATA, REQUEST_METADATA, OTHER };

/* Who must not mistake a key for another that equals it but for case: nobody, the judges of calls, those of models, of
 * Agent2Agent. */
enum guard { NONE, CALL, MODEL, A2A };

/* Keys that are captured. `guarded`: a key that equals it but for case makes the object ambiguous to those. */
struct slot {
    std::string_view key;
    size_t offset;
    guard guarded;
    level inside; /* what level its own members are */
};

#define AT(member) offsetof(ep_scan_message, member)
constexpr size_t not_kept = SIZE_MAX; /* only walked through */

constexpr slot message_slots[] = {
    {"jsonrpc", AT(jsonrpc), CALL, OTHER},
    {"id", AT(id), CALL, OTHER},
    {"method", AT(method), CALL, OTHER},
    {"params", AT(params), CALL, PARAMS},
    {"result", AT(result), CALL, OTHER},
    {"error", AT(error), CALL, OTHER},

    {"model", AT(model), MODEL, OTHER},
    {"stream", AT(stream), MODEL, OTHER},
    {"background", AT(background), MODEL, OTHER},
    {"system", AT(system), MODEL, OTHER},
    {"instructions", AT(instructions), MODEL, OTHER},
    {"messages", AT(messages), MODEL, OTHER},
    {"input", AT(input), MODEL, OTHER},
    {"prompt", AT(prompt), MODEL, OTHER},
    {"tools", AT(tools), MODEL, OTHER},
    {"functions", AT(functions), MODEL, OTHER},
    {"mcp_servers", AT(mcp_servers), MODEL, OTHER},
    {"max_tokens", AT(max_tokens), MODEL, OTHER},
    {"max_completion_tokens", AT(max_completion_tokens), MODEL, OTHER},
    {"max_output_tokens", AT(max_output_tokens), MODEL, OTHER},
    {"n", AT(choices), MODEL, OTHER},
    {"user", AT(user), MODEL, OTHER},
    {"safety_identifier", AT(safety_identifier), MODEL, OTHER},
    {"metadata", AT(metadata), MODEL, REQUEST_METADATA},
    {"previous_response_id", AT(previous_response_id), MODEL, OTHER},
    {"conversation", AT(conversation), MODEL, OTHER},
    {"requests", AT(requests), MODEL, OTHER},

    {"message_type", AT(message_type), NONE, OTHER},
    {"message_id", AT(message_id), NONE, OTHER},
    {"conversation_id", AT(conversation_id), NONE, OTHER},
    {"priority", AT(priority), NONE, OTHER},
    {"impact_score", AT(impact_score), NONE, OTHER},
    {"tenant_id", AT(tenant_id), NONE, OTHER},
    {"constitutional_hash", AT(constitutional_hash), NONE, OTHER},
    {"from_agent", AT(from_agent), NONE, OTHER},
    {"sender_id", AT(sender_id), NONE, OTHER},
    {"sender", AT(sender), NONE, OTHER},
    {"to_agent", AT(to_agent), NONE, OTHER},
    {"recipient", AT(recipient), NONE, OTHER},
    {"content", AT(content), NONE, OTHER},
    {"payload", AT(payload), NONE, OTHER},
    {"routing", not_kept, NONE, ROUTING},

    {"message", AT(a2a_message), NONE, A2A_MESSAGE},
    {"request", AT(a2a_message), NONE, A2A_MESSAGE},
};

constexpr slot params_slots[] = {
    {"name", AT(name), CALL, OTHER},
    {"arguments", AT(arguments), CALL, OTHER},
    {"uri", AT(uri), CALL, OTHER},
    {"taskId", AT(task_id), NONE, OTHER},
    {"protocolVersion", AT(protocol_version), NONE, OTHER},
    {"_meta", not_kept, CALL, META},
    {"id", AT(a2a_id), A2A, OTHER},
    {"task_id", AT(a2a_task_id), NONE, OTHER},
    {"contextId", AT(list_context_id), A2A, OTHER},
    {"context_id", AT(list_context_id), A2A, OTHER},
    {"message", AT(a2a_message), A2A, A2A_MESSAGE},
    {"request", AT(a2a_message), NONE, A2A_MESSAGE},
    {"metadata", not_kept, A2A, REQUEST_METADATA},
};

constexpr slot meta_slots[] = {
    {"io.modelcontextprotocol/protocolVersion", AT(meta_version), CALL, OTHER},
};

constexpr slot routing_slots[] = {
    {"source_agent_id", AT(source_agent_id), NONE, OTHER},
    {"target_agent_id", AT(target_agent_id), NONE, OTHER},
};

/* Protobuf's JSON may have its fields by either name. */
constexpr slot a2a_message_slots[] = {
    {"taskId", AT(message_task_id), A2A, OTHER}, {"task_id", AT(message_task_id), A2A, OTHER},
    {"contextId", AT(context_id), A2A, OTHER},   {"context_id", AT(context_id), A2A, OTHER},
    {"parts", AT(parts), A2A, OTHER},            {"content", AT(message_content), A2A, OTHER},
    {"metadata", not_kept, A2A, A2A_METADATA},
};

constexpr slot a2a_metadata_slots[] = {
    {"skill", AT(skill), A2A, OTHER},
    {"skillId", AT(skill), A2A, OTHER},
    {"skill_id", AT(skill), A2A, OTHER},
};

constexpr slot request_metadata_slots[] = {
    {"skill", AT(request_skill), A2A, OTHER},
    {"skillId", AT(request_skill), A2A, OTHER},
    {"skill_id", AT(request_skill), A2A, OTHER},
};

struct slots {
    const slot *v;
    size_t n;
};

constexpr slots slots_of[] = {
    {message_slots, sizeof message_slots / sizeof message_slots[0]},
    {params_slots, sizeof params_slots / sizeof params_slots[0]},
    {meta_slots, sizeof meta_slots / sizeof meta_slots[0]},
    {routing_slots, sizeof routing_slots / sizeof routing_slots[0]},
    {a2a_message_slots, sizeof a2a_message_slots / sizeof a2a_message_slots[0]},
    {a2a_metadata_slots, sizeof a2a_metadata_slots / sizeof a2a_metadata_slots[0]},
    {request_metadata_slots, sizeof request_metadata_slots / sizeof request_metadata_slots[0]},
    {nullptr, 0},
};

const slot *slot_of(level l, std::string_view key)
{
    const slots &s = slots_of[l];

    for (size_t i = 0; i < s.n; i++)
        if (s.v[i].key == key)
            return &s.v[i];
    return nullptr;
}

/* The next character as a parser without case would compare it. Go folds Unicode too, by which the long s (U+017F) is
 * an s and the Kelvin sign (U+212A) a k. */
unsigned char folded(std::string_view s, size_t &at)
{
    unsigned char c = static_cast<unsigned char>(s[at]);

    if (c == 0xc5 && s.size() - at >= 2 && s[at + 1] == '\xbf') {
        at += 2;
        return 's';
    }
    if (c == 0xe2 && s.size() - at >= 3 && s[at + 1] == '\x84' && s[at + 2] == '\xaa') {
        at += 3;
        return 'k';
    }
    at++;
    return c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c | 0x20) : c;
}

bool equal_folded(std::string_view key, std::string_view wanted)
{
    size_t at = 0, w = 0;

    if (key.size() < wanted.size())
        return false;
    while (at < key.size() && w < wanted.size())
        if (folded(key, at) != folded(wanted, w))
            return false;
    return at == key.size() && w == wanted.size();
}

const slot *looks_like(level l, std::string_view key)
{
    const slots &s = slots_of[l];

    for (size_t i = 0; i < s.n; i++)
        if (s.v[i].guarded && equal_folded(key, s.v[i].key))
            return &s.v[i];
    return nullptr;
}

} // namespace

struct ep_scanner {
    ondemand::parser *parser = nullptr;
    uint64_t seed = 0;
    std::vector<std::string_view> keys; /* of all objects that are open, the innermost last */
    std::vector<uint64_t> hashes;       /* of the keys of one object: an open table, 0: free */
};

namespace
{

ep_scan_text text_of(std::string_view s)
{
    return {s.data(), s.size()};
}

class walk
{
  public:
    walk(ep_scanner &scanner, ondemand::document &document, ep_scan_alloc *alloc_, void *user_, ep_scan *out_)
        : s(scanner), doc(document), alloc(alloc_), user(user_), out(out_)
    {
    }

    bool run();
    ep_scan_result why = EP_SCAN_NOT_JSON;

  private:
    ep_scanner &s;
    ondemand::document &doc;
    ep_scan_alloc *alloc;
    void *user;
    ep_scan *out;
    ep_scan_message **tail = nullptr;

    bool root_array(ondemand::array a);
    bool object(ondemand::object o, level l, ep_scan_message *m, unsigned depth);
    bool array(ondemand::array a, unsigned depth);
    bool value(ondemand::value v, level inside, ep_scan_message *m, unsigned depth, ep_scan_value *into);
    bool string(std::string_view token, ep_scan_value *into);
    bool key(const char *raw, std::string_view &key);
    bool end_of(const char *&p);
    void check_duplicates(size_t base);
    ep_scan_message *message();
};

ep_scan_message *walk::message()
{
    auto *m = static_cast<ep_scan_message *>(alloc(user, sizeof(ep_scan_message)));

    std::memset(m, 0, sizeof *m);
    *tail = m;
    tail = &m->next;
    out->n++;
    return m;
}

bool walk::run()
{
    ondemand::json_type type;

    tail = &out->first;
    s.keys.clear();
    if (doc.type().get(type))
        return false;
    if (type == ondemand::json_type::object) {
        ondemand::object o;
        ep_scan_message *m = message();

        m->is_object = true;
        if (doc.get_object().get(o) || !object(o, MESSAGE, m, 1))
            return false;
    } else if (type == ondemand::json_type::array) {
        ondemand::array a;

        out->batch = true;
        if (doc.get_array().get(a) || !root_array(a))
            return false;
    } else {
        return false;
    }
    const char *more;
    return doc.current_location().get(more) == simdjson::OUT_OF_BOUNDS;
}

bool walk::root_array(ondemand::array a)
{
    for (auto item : a) {
        ondemand::value v;
        ondemand::json_type type;

        if (item.get(v) || v.type().get(type))
            return false;
        if (out->n == EP_SCAN_BATCH_MAX) {
            why = EP_SCAN_TOO_MANY;
            return false;
        }
        ep_scan_message *m = message();
        m->is_object = type == ondemand::json_type::object;
        if (!value(v, m->is_object ? MESSAGE : OTHER, m, 1, nullptr))
            return false;
    }
    return true;
}

bool walk::object(ondemand::object o, level l, ep_scan_message *m, unsigned depth)
{
    size_t base = s.keys.size();

    if (depth > EP_SCAN_DEPTH_MAX) {
        why = EP_SCAN_TOO_DEEP;
        return false;
    }
    for (auto field : o) {
        std::string_view name;
        ep_scan_value *into = nullptr;
        level inside = OTHER;

        if (field.error() || !key(field.key().value_unsafe().raw(), name))
            return false;
        s.keys.push_back(name);
        if (l != OTHER) {
            const slot *x = slot_of(l, name), *like = x ? nullptr : looks_like(l, name);

            if (x) {
                inside = x->inside;
                if (x->offset != not_kept)
                    into = reinterpret_cast<ep_scan_value *>(reinterpret_cast<char *>(m) + x->offset);
                m->ambiguous_a2a |= into && into->kind;
            } else if (like && like->guarded == MODEL) {
                m->ambiguous_model = true;
            } else if (like && like->guarded == A2A) {
                m->ambiguous_a2a = true;
            } else if (like) {
                (l == MESSAGE ? m->ambiguous : m->ambiguous_params) = true;
                m->ambiguous_method |= l == MESSAGE && (like->offset == AT(method) || like->offset == AT(jsonrpc));
            }
        }
        if (!value(field.value().value_unsafe(), inside, m, depth, into))
            return false;
    }
    check_duplicates(base);
    return true;
}

bool walk::array(ondemand::array a, unsigned depth)
{
    if (depth > EP_SCAN_DEPTH_MAX) {
        why = EP_SCAN_TOO_DEEP;
        return false;
    }
    for (auto item : a) {
        ondemand::value v;

        if (item.get(v) || !value(v, OTHER, nullptr, depth, nullptr))
            return false;
    }
    return true;
}

/* Where the container that was just left ends: behind its bracket, before what follows. */
bool walk::end_of(const char *&p)
{
    if (doc.current_location().get(p))
        return false;
    while (is_space(p[-1]))
        p--;
    return true;
}

bool walk::value(ondemand::value v, level inside, ep_scan_message *m, unsigned depth, ep_scan_value *into)
{
    ondemand::json_type type;
    std::string_view token;

    if (v.type().get(type))
        return false;
    token = trim_end(v.raw_json_token());
    switch (type) {
    case ondemand::json_type::object: {
        ondemand::object o;
        if (v.get_object().get(o) || !object(o, inside, m, depth + 1))
            return false;
        break;
    }
    case ondemand::json_type::array: {
        ondemand::array a;
        if (v.get_array().get(a) || !array(a, depth + 1))
            return false;
        break;
    }
    case ondemand::json_type::string: {
        ondemand::raw_json_string consumed;
        if (v.get_raw_json_string().get(consumed))
            return false;
        return string(token, into);
    }
    case ondemand::json_type::number:
        if (!is_number(token))
            return false;
        break;
    case ondemand::json_type::boolean:
        if (token != "true" && token != "false")
            return false;
        break;
    case ondemand::json_type::null:
        if (token != "null")
            return false;
        break;
    }
    if (!into)
        return true;
    switch (type) {
    case ondemand::json_type::object:
    case ondemand::json_type::array: {
        const char *end;
        if (!end_of(end))
            return false;
        token = std::string_view(token.data(), static_cast<size_t>(end - token.data()));
        into->kind = type == ondemand::json_type::object ? EP_SCAN_OBJECT : EP_SCAN_ARRAY;
        break;
    }
    case ondemand::json_type::number:
        into->kind = EP_SCAN_NUMBER;
        break;
    case ondemand::json_type::boolean:
        into->kind = EP_SCAN_BOOL;
        break;
    case ondemand::json_type::null:
    case ondemand::json_type::string:
        into->kind = EP_SCAN_NULL;
        break;
    }
    into->raw = into->text = text_of(token);
    return true;
}

bool walk::string(std::string_view token, ep_scan_value *into)
{
    bool lone = false;
    size_t n;

    if (token.size() < 2 || token.back() != '"')
        return false;
    std::string_view inner = token.substr(1, token.size() - 2);
    bool escaped = std::memchr(inner.data(), '\\', inner.size()) != nullptr;
    if (!into)
        return !escaped || unescape(inner, nullptr, n, lone);
    into->kind = EP_SCAN_STRING;
    into->raw = text_of(token);
    into->text = text_of(inner);
    if (escaped) {
        char *copy = static_cast<char *>(alloc(user, inner.size() + 1));
        if (!unescape(inner, copy, n, lone) || lone)
            return false;
        into->text = {copy, n};
    }
    return true;
}

/* A key, escapes undone; 7 bytes behind it can be read. */
bool walk::key(const char *raw, std::string_view &name)
{
    bool escaped = false, lone = false;
    const char *end = quote_or_backslash(raw);
    size_t n, plain;

    for (; *end == '\\'; end = quote_or_backslash(end + 2))
        escaped = true;
    n = static_cast<size_t>(end - raw);
    name = std::string_view(raw, n);
    if (escaped) {
        char *copy = static_cast<char *>(alloc(user, n + 8));
        if (!unescape(name, copy, plain, lone))
            return false;
        name = std::string_view(copy, plain);
    }
    return true;
}

void walk::check_duplicates(size_t base)
{
    size_t n = s.keys.size() - base, size = 32;
    unsigned shift = 64 - 5;
    const std::string_view *k = s.keys.data() + base;

    if (n <= few_keys) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = 0; j < i; j++)
                if (k[i] == k[j])
                    out->duplicate = true;
    } else if (!out->duplicate) {
        for (; size < 2 * n; size *= 2)
            shift--;
        s.hashes.assign(size, 0);
        for (size_t i = 0; i < n; i++) {
            uint64_t h = hash(k[i], s.seed);
            size_t at = h >> shift; /* the high bits: the low ones hardly know the end of a key */
            while (s.hashes[at] && s.hashes[at] != h)
                at = (at + 1) & (size - 1);
            if (s.hashes[at]) /* two keys of one hash by chance: once in 2^63 */
                out->duplicate = true;
            s.hashes[at] = h;
        }
    }
    s.keys.resize(base);
}

} // namespace

extern "C" struct ep_scanner *ep_scanner_new(uint64_t seed)
{
    auto *s = new (std::nothrow) ep_scanner;

    if (s)
        s->seed = seed;
    return s;
}

extern "C" void ep_scanner_free(struct ep_scanner *s)
{
    if (!s)
        return;
    delete s->parser;
    delete s;
}

static void give_back(ep_scanner *s)
{
    if (s->parser && s->parser->capacity() > keep_bytes) {
        delete s->parser;
        s->parser = nullptr;
    }
    if (s->keys.capacity() > 4096)
        std::vector<std::string_view>().swap(s->keys);
    if (s->hashes.capacity() > 4096)
        std::vector<uint64_t>().swap(s->hashes);
}

extern "C" enum ep_scan_result ep_scan_json(struct ep_scanner *s, const char *text, size_t n, ep_scan_alloc *alloc,
                                            void *user, struct ep_scan *out)
{
    enum ep_scan_result result = EP_SCAN_NOT_JSON;

    *out = ep_scan{};
    if (n >= 3 && std::memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        n -= 3;
    }
    if (!s->parser)
        s->parser = new (std::nothrow) ondemand::parser;
    if (s->parser) {
        ondemand::document doc;

        if (!s->parser->iterate(text, n, n + EP_SCAN_PADDING).get(doc)) {
            walk w(*s, doc, alloc, user, out);
            result = w.run() ? EP_SCAN_OK : w.why;
        }
    }
    give_back(s);
    return result;
}
