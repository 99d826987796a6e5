"""One libtorrent client for the interoperability tests: fetches or seeds a torrent until it is ended.

usage: libtorrent_peer.py TORRENT DIRECTORY PORT [only-udp|only-http]
"""
import sys
import time

import libtorrent as lt

torrent, directory, port = sys.argv[1:4]
only = sys.argv[4] if len(sys.argv) > 4 else ""
session = lt.session({
    "listen_interfaces": f"127.0.0.1:{port}",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "announce_to_all_trackers": True,
    "announce_to_all_tiers": True,
    "alert_mask": lt.alert.category_t.tracker_notification | lt.alert.category_t.error_notification,
})
parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = directory
handle = session.add_torrent(parameters)
if only:
    kept = [url for url in handle.trackers() if url["url"].startswith("udp" if only == "only-udp" else "http")]
    handle.replace_trackers([{"url": url["url"], "tier": 0} for url in kept])
complete = False
while True:
    for alert in session.pop_alerts():
        print(alert.message(), flush=True)
    status = handle.status()
    if status.is_seeding and not complete:
        complete = True
        print("complete", flush=True)
    time.sleep(0.1)
