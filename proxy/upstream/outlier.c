/* Outlier ejection: see outlier.h. */
#include "upstream/outlier.h"

bool ep_outlier_record(struct ep_outlier *o, const struct ep_outlier_rules *r, bool failed)
{
    if (!failed) {
        o->streak = 0;
        return false;
    }
    if (o->streak < UINT32_MAX)
        o->streak++;
    return r->consecutive && !o->ejected && o->streak >= r->consecutive;
}

bool ep_outlier_room(const struct ep_outlier_rules *r, size_t ejected, size_t total)
{
    return (double)(ejected + 1) <= r->max_ejected * (double)total + 1e-9;
}

void ep_outlier_eject(struct ep_outlier *o, const struct ep_outlier_rules *r, uint64_t now_ns)
{
    uint64_t calm = o->ejections && r->ejection_ns ? (now_ns - EP_MIN(now_ns, o->until_ns)) / r->ejection_ns : 0;

    assert(!o->ejected);
    o->times -= (uint32_t)EP_MIN(calm, (uint64_t)o->times);
    if (o->times < EP_OUTLIER_MAX_TIMES)
        o->times++;
    o->ejected = true;
    o->ejections++;
    o->streak = 0;
    o->until_ns = now_ns + r->ejection_ns * o->times;
}

bool ep_outlier_expire(struct ep_outlier *o, uint64_t now_ns)
{
    if (!o->ejected || now_ns < o->until_ns)
        return false;
    o->ejected = false;
    o->streak = 0;
    return true;
}

bool ep_outlier_panic(size_t healthy, size_t total, double threshold)
{
    return (double)healthy < threshold * (double)total;
}
