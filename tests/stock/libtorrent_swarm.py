"""libtorrent for the benchmarks: seeds what is complete in DIRECTORY, fetches the rest, and says when all is there.

usage: libtorrent_swarm.py default|tuned ADDRESS:PORT DIRECTORY TORRENT...

Plain text, TCP, no search for peers but by the torrents' trackers. "tuned" is what was found fastest on loopback: deep
request queues, two hashing threads, a send buffer of 3 MiB, everybody unchoked.
"""
import os
import sys

import libtorrent as lt

profile, listen, directory = sys.argv[1:4]
settings = {
    "listen_interfaces": listen,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "announce_to_all_trackers": True,
    "min_reconnect_time": 1,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
}
if profile == "tuned":
    settings.update({
        "hashing_threads": 2, "aio_threads": 4,
        "max_out_request_queue": 2000, "max_allowed_in_request_queue": 4000, "request_queue_time": 5,
        "send_buffer_watermark": 3 << 20, "send_buffer_low_watermark": 256 << 10, "send_buffer_watermark_factor": 150,
        "recv_socket_buffer_size": 1 << 20, "send_socket_buffer_size": 1 << 20,
        "max_queued_disk_bytes": 64 << 20,
        "unchoke_slots_limit": -1, "choking_algorithm": 0,
        "connection_speed": 500, "torrent_connect_boost": 255,
        "active_downloads": -1, "active_seeds": -1, "active_limit": 100000, "active_checking": 4,
        "active_tracker_limit": 100000, "tracker_backoff": 1, "close_redundant_connections": False,
        "connections_limit": 8000, "listen_queue_size": 4000, "max_concurrent_http_announces": 1000,
        "piece_extent_affinity": False, "suggest_mode": 0,
    })
session = lt.session(settings)
handles = []
for torrent in sys.argv[4:]:
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    parameters.storage_mode = lt.storage_mode_t.storage_mode_sparse
    parameters.flags &= ~lt.torrent_flags.auto_managed
    parameters.flags &= ~lt.torrent_flags.paused
    handles.append(session.add_torrent(parameters))
missing = set(range(len(handles)))
while missing:
    session.wait_for_alert(500)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.torrent_finished_alert):
            missing -= {nth for nth in missing if handles[nth] == alert.handle}
        elif isinstance(alert, (lt.listen_failed_alert, lt.torrent_error_alert, lt.file_error_alert)):
            print(alert.message(), flush=True)


def is_written(handle):
    """Newer versions say "finished" while blocks still wait to be written."""
    files = handle.torrent_file().files()
    paths = [(files.file_path(nth, directory), files.file_size(nth)) for nth in range(files.num_files())]
    return all(os.path.exists(path) and os.stat(path).st_blocks * 512 >= size for path, size in paths)


while not all(is_written(handle) for handle in handles):
    session.wait_for_alert(1)
    session.pop_alerts()
print("complete", flush=True)
while True:
    session.wait_for_alert(60000)
    session.pop_alerts()
