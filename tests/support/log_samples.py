"""Writes requests in the formats of load tools and servers, for the tests that read them.

Fields and units are those of the tools' sources and documents; what a tool on this machine wrote itself stands in
`JMETER_CSV`, `JMETER_XML` and `WRK` (JMeter 2.13 and wrk 4.1 against a server that waits and fails one in twenty).
"""

import json
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

START_MS = 1_795_914_728_587


class Sent(NamedTuple):
    """A request: arrival in ms from START_MS, latency in ms, HTTP status or 0 for no answer, bytes out and in."""

    arrival_ms: int
    latency_ms: int
    code: int = 200
    sent: int = 0
    received: int = 0


def iso(ms, zone=0, digits=3):
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=START_MS + ms)
    if not zone:
        return (
            moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{moment.microsecond:06d}"[: digits + 1] if digits else "") + "Z"
        )
    local = moment + timedelta(hours=zone)
    return local.strftime("%Y-%m-%dT%H:%M:%S") + f".{local.microsecond // 1000:03d}{zone:+03d}:00"


def k6_rows(r):
    """Return the metrics of a request, in k6's order."""
    third = r.latency_ms / 4
    return {
        "http_reqs": 1,
        "http_req_duration": r.latency_ms,
        "http_req_blocked": 1.5,
        "http_req_connecting": 1.25,
        "http_req_tls_handshaking": 0,
        "http_req_sending": third,
        "http_req_waiting": 2 * third,
        "http_req_receiving": third,
        "http_req_failed": int(not 200 <= r.code < 400),
    }


def k6_csv(requests, stamp=lambda ms: str(START_MS + ms)):
    head = (
        "metric_name,timestamp,metric_value,check,error,error_code,expected_response,group,method,name,proto,scenario,"
        "service,status,subproto,tls_version,url,extra_tags,metadata\n"
    )
    lines = [
        f"{metric},{stamp(r.arrival_ms + r.latency_ms)},{value:f},,,{'' if r.code else '1212'},true,,POST,http://h/x,"
        f"HTTP/1.1,default,,{r.code},,,http://h/x,,\n"
        for r in requests
        for metric, value in k6_rows(r).items()
    ]
    other = f"vus,{stamp(0)},4.000000,,,,,,,,,,,,,,,,\n"
    return head + other + "".join(lines) + other


def k6_json(requests):
    declared = '{{"type":"Metric","data":{{"name":"{0}","type":"trend","contains":"time"}},"metric":"{0}"}}\n'
    text = ""
    for i, r in enumerate(requests):
        for metric, value in k6_rows(r).items():
            text += declared.format(metric) if i == 0 else ""
            end = iso(r.arrival_ms + r.latency_ms, zone=2 if i % 2 else 0)
            tags = {"expected_response": "true", "scenario": "default", "status": str(r.code)}
            text += json.dumps({"metric": metric, "type": "Point", "data": {"time": end, "value": value, "tags": tags}})
            text += "\n"
    return text


def vegeta_json(requests):
    return "".join(
        json.dumps(
            {
                "attack": "",
                "seq": i,
                "code": r.code,
                "timestamp": iso(r.arrival_ms, zone=-5 if i % 2 else 0),
                "latency": r.latency_ms * 1_000_000,
                "bytes_out": r.sent,
                "bytes_in": r.received,
                "error": "" if r.code else "Post: connection refused",
                "body": "e30=",
                "method": "POST",
                "url": "http://h/x",
                "headers": None,
            }
        )
        + "\n"
        for i, r in enumerate(requests)
    )


def vegeta_csv(requests):
    return "".join(
        f"{(START_MS + r.arrival_ms) * 1_000_000},{r.code},{r.latency_ms * 1_000_000},{r.sent},{r.received},"
        f"{'' if 200 <= r.code < 400 else 'no good'},e30=,,{i},POST,http://h/x,\n"
        for i, r in enumerate(requests)
    )


def jmeter_csv(requests):
    head = "timeStamp,elapsed,label,responseCode,responseMessage,threadName,dataType,success,failureMessage,bytes,"
    head += "sentBytes,grpThreads,allThreads,URL,Latency,IdleTime,Connect\n"
    return head + "".join(
        f'{START_MS + r.arrival_ms},{r.latency_ms},"a, b",{_jmeter_code(r)},OK,users 1-1,text,'
        f"{str(200 <= r.code < 400).lower()},,{r.received},{r.sent},2,2,http://h/x,{r.latency_ms // 2},0,1\n"
        for r in requests
    )


def jmeter_xml(requests):
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<testResults version="1.2">\n'
        + "".join(
            f'<httpSample t="{r.latency_ms}" it="0" lt="{r.latency_ms // 2}" ct="1" ts="{START_MS + r.arrival_ms}" '
            f's="{str(200 <= r.code < 400).lower()}" lb="a &amp; b" rc="{_jmeter_code(r)}" rm="OK" tn="users 1-1" '
            f'dt="text" by="{r.received}" sby="{r.sent}" ng="2" na="2">\n  <java.net.URL>http://h/x</java.net.URL>\n'
            "</httpSample>\n"
            for r in requests
        )
        + "\n</testResults>\n"
    )


def _jmeter_code(r):
    return r.code or "Non HTTP response code: java.net.ConnectException"


NGINX_FORMAT = '$msec|$request_length|$bytes_sent|$status|$request_time|$upstream_response_time|"$request"'


def nginx_own(requests):
    """Return lines of NGINX_FORMAT: the request took a millisecond longer than the upstream."""
    return "".join(
        f"{_msec(r)}|{r.sent}|{r.received}|{r.code:03d}|{_s(r.latency_ms + 1)}|{_s(r.latency_ms)}|"
        f'"GET /a|b\\x22 HTTP/1.1"\n'
        for r in requests
    )


def nginx_json(requests):
    return "".join(
        json.dumps(
            {
                "msec": _msec(r),
                "request": 'GET "x"',
                "status": str(r.code),
                "request_time": _s(r.latency_ms + 1),
                "upstream_response_time": _s(r.latency_ms),
                "request_length": str(r.sent),
                "bytes_sent": r.received,
            }
        )
        + "\n"
        for r in requests
    )


def nginx_table(requests):
    return "msec,status,request_time,request_length,bytes_sent\n" + "".join(
        f"{_msec(r, 0)},{r.code},{_s(r.latency_ms)},{r.sent},{r.received}\n" for r in requests
    )


def _msec(r, more=1):
    return _s(START_MS + r.arrival_ms + r.latency_ms + more)


def _s(ms):
    return f"{ms // 1000}.{ms % 1000:03d}"


def combined(r, rest=""):
    """Return a line of the combined format, whose time is in whole seconds."""
    end = datetime.fromtimestamp((START_MS + r.arrival_ms + r.latency_ms) // 1000, UTC)
    return (
        f'10.0.0.7 - - [{end:%d/%b/%Y:%H:%M:%S} +0000] "POST /invocations?a=\\x22 HTTP/1.1" {r.code} {r.received} '
        f'"-" "an agent"{rest}\n'
    )


def alb(requests):
    return "".join(
        f"https {iso(r.arrival_ms + r.latency_ms, digits=6)} app/my-balancer/50dc6c495c0c9188 192.168.131.39:2817 "
        f"{'10.0.0.1:80' if r.code != 504 else '-'} 0.000 {_s(r.latency_ms) if r.code != 504 else '-1'} 0.000 {r.code} "
        f"{r.code if r.code != 504 else '-'} {r.sent} {r.received} "
        '"POST https://www.example.com:443/invocations HTTP/1.1" "an \\"agent\\" 2026-01-01T00:00:00Z" '
        "ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/t/73 "
        '"Root=1-58337281-1d84f3d73c47ec4e58577259" "www.example.com" "arn:aws:acm:us-east-2:123456789012:c" '
        f'1 {iso(r.arrival_ms)[:-1]}000Z "forward" "-" "-" "10.0.0.1:80" "{r.code}" "-" "-" TID_1234\n'
        for r in requests
    )


def aiperf(requests):
    return "".join(
        json.dumps(
            {
                "metadata": {
                    "session_num": i,
                    "x_request_id": f"request-{i}",
                    "turn_index": 0,
                    "request_start_ns": (START_MS + r.arrival_ms) * 1_000_000,
                    "request_ack_ns": None,
                    "request_end_ns": (START_MS + r.arrival_ms + r.latency_ms) * 1_000_000,
                    "worker_id": "worker_1",
                    "benchmark_phase": "profiling",
                    "was_cancelled": False,
                    "cancellation_time_ns": None,
                },
                "metrics": {
                    "input_sequence_length": {"value": 550, "unit": "tokens"},
                    "time_to_first_token": {"value": r.latency_ms / 2, "unit": "ms"},
                    "request_latency": {"value": r.latency_ms, "unit": "ms"},
                    "output_sequence_length": {"value": 9, "unit": "tokens"},
                    "inter_chunk_latency": {"value": [4.9, 5.3], "unit": "ms"},
                }
                if r.code == 200
                else {"error_isl": {"value": 550, "unit": "tokens"}},
                "error": None if r.code == 200 else {"code": r.code or None, "type": "ServerError", "message": "no"},
            }
        )
        + "\n"
        for i, r in enumerate(requests)
    )


def inference_perf(requests, indent=2):
    base_s = 81_234.5  # of a monotonic clock
    return json.dumps(
        [
            {
                "start_time": base_s + r.arrival_ms / 1e3,
                "end_time": base_s + (r.arrival_ms + r.latency_ms) / 1e3,
                "request": '{"prompt": "a [b], {c}"}',
                "response": "],[",
                "info": {
                    "request_metrics": {"text": {"input_tokens": 550}},
                    "response_metrics": {
                        "output_tokens": 9,
                        "output_token_times": [base_s + (r.arrival_ms + r.latency_ms / 2) / 1e3],
                    },
                    "input_tokens": 550,
                }
                if r.code == 200
                else {
                    "request_metrics": {"text": {"input_tokens": 550}},
                    "response_metrics": None,
                    "input_tokens": 550,
                },
                "error": None
                if r.code == 200
                else {"error_type": f"{r.code} - No" if r.code else "ClientOSError", "error_msg": "no"},
            }
            for r in requests
        ],
        indent=indent,
    )


JMETER_CSV = """\
timeStamp,elapsed,label,responseCode,responseMessage,threadName,dataType,success,bytes,grpThreads,allThreads,Latency,Connect
1795914728587,92,"gone, ""quoted""\",Non HTTP response code: java.net.ConnectException,Non HTTP response message: \
Connection refused,users 1-1,text,false,1973,2,2,0,0
1795914728685,74,invoke,200,OK,users 1-2,text,true,179,2,2,47,13
1795914727810,950,both,,"Number of samples in transaction : 2, number of failing samples : 1",users 1-2,,false,2152,2,\
2,47,13
1795914728682,90,invoke,200,OK,users 1-1,text,true,179,2,2,90,16
"""
JMETER_XML = """\
<?xml version="1.0" encoding="UTF-8"?>
<testResults version="1.2">
<sample t="498" lt="0" ct="0" ts="1795914733232" s="false" lb="both" rc="Non HTTP response code: \
java.net.ConnectException" rm="Number of samples in transaction : 2, number of failing samples : 1" tn="users 1-2" dt=\
"" by="2152" ng="2" na="2">
  <httpSample t="39" lt="0" ct="0" ts="1795914733567" s="false" lb="gone, &quot;quoted&quot;" rc="Non HTTP response \
code: java.net.ConnectException" rm="Non HTTP response message: Connection refused" tn="users 1-2" dt="text" \
by="1973" ng="2" na="2"/>
  <httpSample t="123" lt="102" ct="7" ts="1795914733607" s="true" lb="invoke" rc="200" rm="OK" tn="users 1-2" dt=\
"text" by="179" ng="2" na="2"/>
</sample>
</testResults>
"""
WRK = """\
Running 2s test @ http://127.0.0.1:18098/invocations
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    12.62ms    9.76ms  65.19ms   74.75%
    Req/Sec   350.05     56.29   464.00     60.00%
  Latency Distribution
     50%   10.53ms
     75%   17.50ms
     90%   26.33ms
     99%   42.81ms
  700 requests in 2.01s, 128.96KB read
  Non-2xx or 3xx responses: 40
Requests/sec:    348.29
Transfer/sec:     64.17KB
"""
WRK2 = """\
Running 30s test @ http://127.0.0.1:8080/x
  2 threads and 50 connections
  Thread calibration: mean lat.: 4.087ms, rate sampling interval: 10ms
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     6.60ms    1.92ms  12.50ms   68.46%
    Req/Sec     1.04k     1.08k    2.50k    72.79%
  Latency Distribution (HdrHistogram - Recorded Latency)
 50.000%    6.67ms
 99.000%   11.18ms
100.000%   12.50ms

  Detailed Percentile spectrum:
       Value   Percentile   TotalCount 1/(1-Percentile)

       0.921     0.000000            1         1.00
       6.671     0.500000        19783         2.00
      11.183     0.990000        39170       100.00
      12.503     1.000000        39566          inf
#[Mean    =        6.602, StdDeviation   =        1.919]
#[Max     =       12.496, Total count    =        39566]
#[Buckets =           27, SubBuckets     =         2048]
----------------------------------------------------------
  59003 requests in 30.00s, 19.30MB read
Requests/sec:   1966.77
Transfer/sec:    658.80KB
"""
