//! confd's documented functions, each with what its documentation promises, in both syntaxes.

use super::*;

struct Still;

impl Surroundings for Still {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "HOSTNAME").then(|| "web1".to_owned())
    }
    fn now_ms(&self) -> u64 {
        1_422_048_896_093
    }
    fn has_file(&self, path: &str) -> bool {
        path == "/etc/there"
    }
    fn addresses(&self, host: &str) -> Vec<String> {
        let all = ["10.0.0.2", "10.0.0.1", "fe80::1"];
        if host == "some.host" { all.map(str::to_owned).to_vec() } else { Vec::new() }
    }
    fn services(&self, service: &str, proto: &str, name: &str) -> Vec<Service> {
        let made = |target: &str, port| Service {
            target: target.to_owned(),
            port,
            priority: 10,
            weight: 5,
        };
        match (service, proto, name) {
            ("mail", "tcp", "example.com") => vec![made("b.", 25), made("a.", 26)],
            _ => Vec::new(),
        }
    }
}

fn filled(name: &str, source: &str) -> Result<String, FillError> {
    let pairs = [
        ("/key", "foobar"),
        ("/count", "3"),
        ("/nginx/domain", "example.com"),
        ("/app/upstream/app2", "10.0.1.99:80"),
        ("/app/upstream/app1", "10.0.1.100:80"),
        ("/services/zookeeper/host1", r#"{"Id":"host1", "IP":"192.168.10.11", "port": 2181}"#),
        ("/services/zookeeper/host2", r#"{"Id":"host2", "IP":"192.168.10.12", "port": 2182}"#),
        ("/services/web/cust1/2", r#"{"IP": "10.0.0.2"}"#),
        ("/services/web/cust2/2", r#"{"IP": "10.0.0.4"}"#),
        ("/services/web/cust2/1", r#"{"IP": "10.0.0.3"}"#),
        ("/services/web/cust1/1", r#"{"IP": "10.0.0.1"}"#),
        ("/services/data", r#"["a", "b", 3]"#),
        (
            "/test/data",
            r#"{"animals": [{"type": "dog", "name": "Fido"}, {"type": "cat", "name": "Misse"}]}"#,
        ),
    ];
    let pairs: Pairs =
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let around: Arc<dyn Surroundings> = Arc::new(Still);
    fill(name, source, &Arc::new(pairs), &around)
}

fn check(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        assert_eq!(filled("t.tmpl", source).as_deref(), Ok(*expected), "of {source}");
    }
}

#[test]
fn what_finds_pairs() {
    check(&[
        ("{{with get `/key`}}{{base .Key}}={{.Value}}{{end}}", "key=foobar"),
        ("{{if exists `/key`}}{{getv `/key`}}{{end}}{{exists `/no`}}", "foobarfalse"),
        ("{{getv `/no` `otherwise`}}", "otherwise"),
        (
            "{{range gets `/app/upstream/*`}}{{.Key}}={{.Value}} {{end}}",
            "/app/upstream/app1=10.0.1.100:80 /app/upstream/app2=10.0.1.99:80 ",
        ),
        (
            "{{range getvs `/app/upstream/*`}}server {{.}};{{end}}",
            "server 10.0.1.100:80;server 10.0.1.99:80;",
        ),
        ("{{range gets `/*`}}{{.Key}} {{end}}{{len (gets `/*/*/*`)}}", "/count /key 4"),
        (
            "{{len (getvs `/app/upstream/app?`)}}{{len (gets `/app/[a-u]*/app[^1]`)}}{{gets `/no/*`}}",
            "21[]",
        ),
        (
            "{{ls `/services/web`}} {{ls `/services`}} {{ls `/services/`}} {{ls `/key`}} {{ls `/no`}}",
            "[cust1 cust2] [data web zookeeper] [data web zookeeper] [key] []",
        ),
        (
            "{{lsdir `/services`}} {{lsdir `/services/web/cust1`}} {{lsdir `/`}}",
            "[web zookeeper] [] [app nginx services test]",
        ),
    ]);
}

#[test]
fn what_computes() {
    check(&[
        ("{{toUpper `value`}} {{toLower `Value`}} {{contains `abc` `b`}}", "VALUE value true"),
        (
            "{{replace `a-b-c` `-` `_` -1}} {{replace `a-b-c` `-` `_` 1}} {{trimSuffix `a.b.` `.`}}",
            "a_b_c a_b-c a.b",
        ),
        (
            "{{$url := split `host:80` `:`}}{{index $url 0}} {{index $url 1}} {{split `abc` ``}}",
            "host 80 [a b c]",
        ),
        ("{{join (getvs `/app/upstream/*`) `,`}}", "10.0.1.100:80,10.0.1.99:80"),
        (
            "{{dir `/services/data/url`}} {{dir `/a`}} {{dir `a`}} {{base `/a/b/`}} {{base ``}} {{dir `a//../b/c`}}",
            "/services/data / . b . b",
        ),
        ("{{base64Encode `Value`}} {{base64Decode `VmFsdWU=`}}", "VmFsdWU= Value"),
        (
            "{{seq 1 (atoi (getv `/count`))}} {{add 1 2}} {{sub 1 2}} {{mul 3 4}} {{div 7 2}} {{mod 7 2}}",
            "[1 2 3] 3 -1 12 3 1",
        ),
        ("{{if parseBool `true`}}on{{end}}{{parseBool `0`}}", "onfalse"),
        (
            "{{reverse (getvs `/app/upstream/*`)}} {{sortByLength (split `ccc,a,bb` `,`)}}",
            "[10.0.1.99:80 10.0.1.100:80] [a bb ccc]",
        ),
        ("{{range sortKVByLength (gets `/[kc]*`)}}{{.Key}} {{end}}", "/key /count "),
        ("{{$e := map `name` `es` `port` 9200}}{{index $e `name`}}:{{$e.port}}", "es:9200"),
    ]);
}

#[test]
fn values_of_others_and_surroundings() {
    check(&[
        (
            "{{range gets `/services/zookeeper/*`}}{{$data := json .Value}}{{$data.Id}} {{$data.IP}}:{{$data.port}};{{end}}",
            "host1 192.168.10.11:2181;host2 192.168.10.12:2182;",
        ),
        (
            "{{$data := json (getv `/test/data`)}}{{(index $data.animals 1).type}} {{range $data.animals}}{{.name}} {{end}}",
            "cat Fido Misse ",
        ),
        ("{{range jsonArray (getv `/services/data`)}}{{.}},{{end}}", "a,b,3,"),
        ("{{getenv `HOSTNAME`}} {{getenv `NO`}}|{{getenv `NO` `127.0.0.1`}}", "web1 |127.0.0.1"),
        ("{{fileExists `/etc/there`}} {{fileExists `/etc/no`}}", "true false"),
        (
            "{{lookupIP `some.host`}} {{lookupIPV4 `some.host`}} {{lookupIPV6 `some.host`}} {{lookupIP `no`}}",
            "[10.0.0.1 10.0.0.2 fe80::1] [10.0.0.1 10.0.0.2] [fe80::1] []",
        ),
        (
            "{{range lookupSRV `mail` `tcp` `example.com`}}{{.Target}}{{.Port}}/{{.Priority}}/{{.Weight}} {{end}}",
            "a.26/10/5 b.25/10/5 ",
        ),
        ("{{datetime}}", "2015-01-23 21:34:56.093 +0000 UTC"),
        (
            "{{datetime.Format `Jan 2, 2006 at 3:04pm (MST)`}} {{datetime.Unix}}",
            "Jan 23, 2015 at 9:34pm (UTC) 1422048896",
        ),
        (
            "{{datetime.Format `Mon 02/01/06 15:04:05 2006-01-02T15:04:05Z07:00`}}",
            "Fri 23/01/15 21:34:56 2015-01-23T21:34:56Z",
        ),
    ]);
}

#[test]
fn the_complex_example_of_confd_comes_out_as_documented() {
    let source = "{{range $dir := lsdir \"/services/web\"}}\nupstream {{base $dir}} {\n    {{$custdir := printf \"/services/web/%s/*\" $dir}}{{range gets $custdir}}\n    server {{$data := json .Value}}{{$data.IP}}:80;\n    {{end}}\n}\n{{end}}";
    let text = filled("services.conf.tmpl", source).expect("filled");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(
        lines,
        [
            "upstream cust1 {",
            "server 10.0.0.1:80;",
            "server 10.0.0.2:80;",
            "}",
            "upstream cust2 {",
            "server 10.0.0.3:80;",
            "server 10.0.0.4:80;",
            "}",
        ]
    );
}

#[test]
fn faults_say_where_and_what() {
    let check = |name: &str, source: &str, said: &str| {
        let error = filled(name, source).expect_err(source).to_string();
        assert!(error.contains(said), "{error}");
    };
    check("a.tmpl", "x\n{{getv `/no`}}", "a.tmpl:2:3: error calling getv: key does not exist: /no");
    check("a.tmpl", "{{gets `/[`}}", "syntax error in pattern");
    check("a.tmpl", "{{add 1 `x`}}", "expected int; got string");
    check("a.tmpl", "{{div 1 0}}", "div of 1 and 0 is no number");
    check("a.tmpl", "{{json `[1]`}}", "no JSON object");
    check("a.tmpl", "{{cgetv `/key`}}", "encrypted values cannot be read here");
    check("a.j2", "x\n{{ getv('/no') }}", "a.j2:2: getv: key does not exist: /no");
    check("a.j2", "{{ nope }}", "a.j2:1:");
    check("a.j2", "{% if %}", "a.j2:1:");
}

#[test]
fn a_template_of_jinjas_has_the_same_functions() {
    let source = "{% for pair in gets('/services/zookeeper/*') %}{% set data = json(pair.value) -%}\n{{ base(pair.key) }} {{ data.IP }}:{{ data.port }}\n{% endfor %}{{ getv('/no', 'x') }} {{ lookupSRV('mail', 'tcp', 'example.com')[0].port }} {{ add(1, 2) }}\n";
    assert_eq!(
        filled("t.j2", source).as_deref(),
        Ok("host1 192.168.10.11:2181\nhost2 192.168.10.12:2182\nx 26 3\n")
    );
}
