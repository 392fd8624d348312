/* net: the loop, connections, listeners, TLS. Below: base. It knows nothing of HTTP. */
#ifndef EP_NET_NET_H
#define EP_NET_NET_H

#include "net/conn.h"
#include "net/listener.h"
#include "net/timer.h"
#include "net/tls.h"
#include "net/worker.h"

#endif
