//! What templates make of one set of data.

use std::sync::Arc;

use super::*;
use crate::error::Kind;
use crate::function::ANY;
use crate::value::Object;

/// Something with a method.
#[derive(Debug)]
struct Clock;

impl Object for Clock {
    fn type_name(&self) -> &str {
        "Clock"
    }

    fn get(&self, name: &str, arguments: &[Value]) -> Option<function::Answer> {
        match (name, arguments) {
            ("At", [Value::String(zone)]) => Some(Ok(Value::text(format!("noon in {zone}")))),
            ("At", _) => Some(Err(Refused("At wants one zone".into()))),
            _ => None,
        }
    }

    fn text(&self) -> String {
        "noon".to_owned()
    }
}

fn data() -> Value {
    let pair = |key: &str, value: &str| {
        Value::record("KVPair", vec![("Key", key.into()), ("Value", value.into())])
    };
    Value::map([
        ("Name", "web".into()),
        ("Empty", "".into()),
        ("Port", Value::Int(80)),
        ("Zero", Value::Int(0)),
        ("Ratio", Value::Float(0.5)),
        ("On", true.into()),
        ("None", Value::Nil),
        ("Hosts", Value::list(["a".into(), "b".into(), "c".into()])),
        ("NoHosts", Value::list([])),
        ("Labels", Value::map([("zone", Value::from("x")), ("rack", Value::Int(7))])),
        ("Pairs", Value::list([pair("/x/1", "one"), pair("/x/2", "two")])),
        ("Clock", Value::Object(Arc::new(Clock))),
    ])
}

fn functions() -> Functions {
    let mut functions = Functions::default();
    functions.add("upper", 1..=1, |a| match &a[0] {
        Value::String(text) => Ok(text.to_uppercase().into()),
        other => Err(Refused(format!("no text: {}", other.type_name()))),
    });
    functions.add("many", 0..=ANY, |a| Ok(Value::Int(i64::try_from(a.len()).unwrap_or(0))));
    functions
}

fn fill(source: &str) -> Result<String, Error> {
    Template::parse("t", source, functions())?.fill(&data(), Limits::default())
}

fn check(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        match fill(source) {
            Ok(text) => assert_eq!(text, *expected, "of {source}"),
            Err(error) => panic!("{source}: {error}"),
        }
    }
}

/// Kind, line and column of a fault, and what is said of it.
fn faults(cases: &[(&str, Kind, usize, usize, &str)]) {
    for (source, kind, line, column, said) in cases {
        let error = fill(source).expect_err(source);
        assert_eq!((error.kind, error.line, error.column), (*kind, *line, *column), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn text_and_trimming() {
    check(&[
        ("plain { text } }}", "plain { text } }}"),
        ("{{.Name}}:{{.Port}}", "web:80"),
        ("a  {{- .Port -}}  b", "a80b"),
        ("a \n {{- /* gone */ -}} \n b {{/* too }} */}}c", "ab c"),
        ("{{23 -}} < {{- 45}}", "23<45"),
        ("{{-3}} {{- 3}}", "-33"),
        ("{{\n.Name\n}}", "web"),
        ("", ""),
    ]);
}

#[test]
fn values_and_constants() {
    check(&[
        ("{{.Labels.zone}} {{.Labels.rack}}", "x 7"),
        ("{{.Nope}} {{.Nope.Deeper}} {{.None}}", "<no value> <no value> <no value>"),
        ("{{$.Name}} {{(index .Pairs 1).Value}}", "web two"),
        ("{{.Hosts}} {{.Labels}} {{index .Pairs 0}}", "[a b c] map[rack:7 zone:x] {/x/1 one}"),
        (r#"{{"q\t\u00e9\x41\101\""}} {{'a'}} {{'\n'}}"#, "q\té\u{41}A\" 97 10"),
        ("{{`raw\\n\r\n`}}", "raw\\n\n"),
        (
            "{{0x1F}} {{0b101}} {{0o17}} {{017}} {{1_000}} {{1e3}} {{1.50}}",
            "31 5 15 15 1000 1000 1.5",
        ),
        (
            "{{-2.5e-7}} {{.5}} {{1e21}} {{123456789.0}} {{+4}}",
            "-2.5e-07 0.5 1e+21 1.23456789e+08 4",
        ),
        (
            "{{.Clock}} {{.Clock.At `Rome`}} {{`Bern` | .Clock.At}}",
            "noon noon in Rome noon in Bern",
        ),
        ("{{true}} {{print nil}} {{print .None .Nope}}", "true <nil> <nil> <nil>"),
    ]);
}

#[test]
fn conditions() {
    check(&[
        ("{{if .On}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}1{{else if .Zero}}2{{else if .Name}}3{{else}}4{{end}}", "3"),
        ("{{if or .Empty .NoHosts .None .Nope 0 0.0}}1{{else}}2{{end}}", "2"),
        ("{{with .Name}}{{.}}{{$.Port}}{{end}}{{with .Empty}}a{{else}}{{.Port}}{{end}}", "web8080"),
        ("{{with .Empty}}a{{else with .Name}}{{.}}{{else}}c{{end}}", "web"),
        ("{{with $x := .Labels}}{{$x.zone}}{{end}}{{if $y := 5}}{{$y}}{{end}}", "x5"),
        (
            "{{and .Name .Port}} {{and 0 (index .NoHosts 9)}} {{or 0 `x` (index .NoHosts 9)}}",
            "80 0 x",
        ),
        ("{{.On | and 1}} {{false | or 0}} {{not .On}}", "true false false"),
        (
            "{{eq 1 1}} {{eq .Name `a` `web`}} {{ne 1 2}} {{lt 1 2}} {{le `b` `a`}} {{ge 0.5 .Ratio}}",
            "true true true true false true",
        ),
        ("{{gt 2 1}} {{eq .None nil}} {{eq .Nope .None}} {{eq .Name nil}}", "true true true false"),
    ]);
}

#[test]
fn ranges_and_variables() {
    check(&[
        ("{{range .Hosts}}{{.}},{{end}}", "a,b,c,"),
        ("{{range $i, $h := .Hosts}}{{if $i}}, {{end}}{{$i}}={{$h}}{{end}}", "0=a, 1=b, 2=c"),
        ("{{range $h := .Hosts}}{{$h}}{{.}}{{end}}", "aabbcc"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "rack=7 zone=x "),
        ("{{range .NoHosts}}x{{else}}none of {{.Name}}{{end}}", "none of web"),
        ("{{range .None}}x{{else}}nil{{end}}{{range 3}}{{.}}{{end}}", "nil012"),
        ("{{range .Hosts}}{{if eq . `b`}}{{continue}}{{end}}{{.}}{{end}}", "ac"),
        ("{{range .Hosts}}{{if eq . `b`}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ("{{range .Hosts}}{{range 5}}{{if .}}{{break}}{{end}}{{.}}{{end}}{{.}}{{end}}", "0a0b0c"),
        ("{{$x := 1}}{{range .Hosts}}{{$x = .}}{{end}}{{$x}}", "c"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("{{$i := 9}}{{range $i, $h := .Hosts}}{{end}}{{$i}}", "9"),
        ("{{$i := 9}}{{$h := 0}}{{range $i, $h = .Hosts}}{{end}}{{$i}}{{$h}}", "2c"),
        ("{{range .Pairs}}{{.Key}}:{{.Value}} {{$.Name}} {{end}}", "/x/1:one web /x/2:two web "),
    ]);
}

#[test]
fn templates_in_templates() {
    check(&[
        ("{{define `T`}}[{{.}}]{{end}}{{template `T` .Name}}{{template `T`}}", "[web][<no value>]"),
        ("{{template `T` .Port}}{{define `T`}}{{$}}{{end}}", "80"),
        ("{{block `B` .Labels}}{{.zone}}{{end}}{{template `B` .Labels}}", "xx"),
        ("{{$x := 1}}{{define `T`}}{{$x := 2}}{{$x}}{{end}}{{template `T`}}{{$x}}", "21"),
        (
            "{{define `L`}}{{if .}}{{index . 0}}{{template `L` (slice . 1)}}{{end}}{{end}}{{template `L` .Hosts}}",
            "abc",
        ),
        ("{{define `T`}}{{end}}{{define `T`}}x{{end}}{{template `T`}}", "x"),
    ]);
}

#[test]
fn functions_and_pipelines() {
    check(&[
        ("{{.Name | upper}} {{upper .Name | printf `%s-%d` | printf `%.4s`}}", "WEB WEB-"),
        ("{{.Name | printf `%s:%v` `a`}} {{many 1 (many) | many 3}}", "a:web 2"),
        ("{{printf `%d` (len .Hosts)}} {{len `é`}} {{len .Labels}}", "3 2 2"),
        (
            "{{index .Hosts 2}} {{index .Labels `zone`}} {{index .Labels `no`}} {{index `ab` 1}}",
            "c x <no value> 98",
        ),
        (
            "{{index .Hosts}} {{slice .Hosts 1}} {{slice `hello` 1 3}} {{slice .Hosts 0 1 2}}",
            "[a b c] [b c] el [a]",
        ),
        (
            "{{html `<a href=\"x\">'&`}} {{js `<it's \"=\\>`}}",
            "&lt;a href=&#34;x&#34;&gt;&#39;&amp; \\u003Cit\\'s \\\"\\u003D\\\\\\u003E",
        ),
        (
            "{{urlquery `a b&c/é`}} {{print 1 2 `x` `y` 3 4}} {{println `a` 1}}",
            "a+b%26c%2F%C3%A9 1 2xy3 4 a 1\n",
        ),
    ]);
}

#[test]
fn the_verbs_of_printf() {
    check(&[
        (
            "{{printf `%d|%5d|%-5d|%05d|%+d|% d|%x|%#X|%o|%b|%c|%U` 42 42 42 42 42 42 255 255 8 5 65 65}}",
            "42|   42|42   |00042|+42| 42|ff|0XFF|10|101|A|U+0041",
        ),
        (
            "{{printf `%s|%5s|%-5s|%.2s|%q|%x|%X|% x` `web` `web` `web` `web` `a\"b` `hi` `hi` `hi`}}",
            "web|  web|web  |we|\"a\\\"b\"|6869|6869|68 69",
        ),
        (
            "{{printf `%f|%.2f|%8.3f|%e|%g|%G|%v` 3.14159 3.14159 3.14159 1234.5 0.00001 1e20 0.1}}",
            "3.141590|3.14|   3.142|1.234500e+03|1e-05|1E+20|0.1",
        ),
        ("{{printf `%.3g|%.3g|%06.2f|%+.1f` 1234.0 100.0 -1.5 2.0}}", "1.23e+03|100|-01.50|+2.0"),
        (
            "{{printf `%t|%v|%v|%v|%T|%T|%T` true .Hosts .Labels nil 1 `s` 1.5}}",
            "true|[a b c]|map[rack:7 zone:x]|<nil>|int|string|float64",
        ),
        ("{{printf `%q|%s|%%|%[2]v|%[1]v` .Hosts .Name}}", "[\"a\" \"b\" \"c\"]|web|%|web|[a b c]"),
        ("{{printf `%*d|%-*d|%.*f` 4 7 4 7 1 2.55}}", "   7|7   |2.5"),
        (
            "{{printf `%d` `x`}} {{printf `%s`}} {{printf `%s` 1 2}} {{printf `%z` 1}} {{printf `%`}}",
            "%!d(string=x) %!s(MISSING) %!s(int=1)%!(EXTRA int=2) %!z(int=1) %!(NOVERB)",
        ),
        (
            "{{printf `%[5]d` 1}} {{printf `%*d` `w` 1}} {{printf `%q` 120}}",
            "%!d(BADINDEX) %!(BADWIDTH)1 'x'",
        ),
    ]);
}

#[test]
fn what_is_no_template_says_where() {
    let syntax = Kind::Syntax;
    faults(&[
        ("a\nb {{.Name", syntax, 2, 3, "unclosed action"),
        ("{{if .A}}x", syntax, 1, 3, "without its"),
        ("x{{end}}", syntax, 1, 4, "unexpected {{end}}"),
        ("{{if}}x{{end}}", syntax, 1, 5, "missing value for if"),
        ("{{.A | }}", syntax, 1, 8, "missing value"),
        ("{{.A | `x`}}", syntax, 1, 8, "non executable command"),
        ("é\n  {{nope 1}}", syntax, 2, 5, "function \"nope\" not defined"),
        ("{{$x}}", syntax, 1, 3, "undefined variable `$x`"),
        ("{{if $x := 1}}{{end}}{{$x}}", syntax, 1, 24, "undefined variable"),
        ("{{(.A}}", syntax, 1, 3, "unclosed left paren"),
        ("{{.A)}}", syntax, 1, 5, "unexpected right paren"),
        ("{{`x}}", syntax, 1, 3, "unterminated raw"),
        ("{{\"x}}", syntax, 1, 3, "unterminated quoted"),
        ("{{\"\\z\"}}", syntax, 1, 3, "bad escape"),
        ("{{3x}}", syntax, 1, 3, "bad number"),
        ("{{0x}}", syntax, 1, 3, "bad number"),
        ("{{9223372036854775808}}", syntax, 1, 3, "integer overflow"),
        ("{{''}}", syntax, 1, 3, "malformed character"),
        ("{{break}}", syntax, 1, 3, "outside {{range}}"),
        ("{{if 1}}{{define `x`}}{{end}}{{end}}", syntax, 1, 11, "unexpected {{define}}"),
        ("{{define `x`}}a{{end}}{{define `x`}}b{{end}}", syntax, 1, 25, "multiple definition"),
        ("{{template x}}", syntax, 1, 12, "needs a name"),
        ("{{/* x }}", syntax, 1, 1, "unclosed comment"),
        ("{{/* x */ }}", syntax, 1, 1, "comment ends before"),
        ("{{.A^}}", syntax, 1, 3, "bad character"),
        ("{{range $a, $b, $c := .A}}{{end}}", syntax, 1, 17, "too many declarations"),
        ("{{if 1}}a{{else}}b{{else}}c{{end}}", syntax, 1, 3, "two {{else}}"),
    ]);
}

#[test]
fn what_cannot_be_carried_out_says_where() {
    let execution = Kind::Execution;
    faults(&[
        ("a\n{{.Name.Deeper}}", execution, 2, 3, "can't evaluate field Deeper in type string"),
        ("{{.None.Deeper}}", execution, 1, 3, "nil pointer"),
        ("{{(index .Pairs 0).Nope}}", execution, 1, 3, "can't evaluate field Nope in type KVPair"),
        ("{{.Name 3}}", execution, 1, 3, "has arguments"),
        ("{{index .Hosts 3}}", execution, 1, 3, "index out of range: 3"),
        ("{{upper}}", execution, 1, 3, "want 1 got 0"),
        (
            "{{if true}}\n  {{upper .Port}}{{end}}",
            execution,
            2,
            5,
            "error calling upper: no text: int",
        ),
        ("{{range .Name}}{{end}}", execution, 1, 9, "range can't iterate over web"),
        ("{{eq 1 `x`}}", execution, 1, 3, "incompatible types"),
        ("{{eq .Hosts .Hosts}}", execution, 1, 3, "non-comparable"),
        ("{{template `nope`}}", execution, 1, 3, "not defined"),
        ("{{nil}}", execution, 1, 3, "nil is not a command"),
        ("{{3 4}}", execution, 1, 3, "no function"),
        ("{{len 3}}", execution, 1, 3, "len of type int"),
    ]);
}

#[test]
fn a_template_ends() {
    let limits = Limits { depth: 200, steps: 10_000, output: 1_000 };
    let ends = |source: &str| {
        let template = Template::parse("t", source, functions()).expect("a template");
        template.fill(&data(), limits).expect_err(source).kind
    };
    for endless in [
        "{{define `x`}}{{template `x`}}{{end}}{{template `x`}}",
        "{{range 1000000000}}{{end}}",
        "{{range 1000}}0123456789{{end}}",
        "{{$x := `0123456789`}}{{range 100}}{{$x = print $x $x}}{{end}}",
    ] {
        assert_eq!(ends(endless), Kind::Limit, "{endless}");
    }
    let deep = "{{if 1}}".repeat(5_000);
    assert_eq!(Template::parse("t", &deep, functions()).expect_err("deep").kind, Kind::Syntax);
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(Template::parse("t", &deep, functions()).expect_err("deep").kind, Kind::Syntax);
}

#[test]
fn no_input_makes_it_panic() {
    // Every prefix and every single-character change of a text with everything in it.
    let whole = "a{{- /*c*/ -}} {{define `T`}}{{.}}{{end}}{{range $i, $e := .Hosts}}{{if eq $i 1}}\
        {{break}}{{else}}{{printf \"%5.2f|%q\" 1.5 'x' | html}}{{end}}{{end}}{{template `T` (slice .Hosts 1)}}{{$x := .Labels.zone}}{{$x}}";
    for (at, _) in whole.char_indices() {
        let _any = fill(&whole[..at]);
        for other in ["", "{", "}", "(", "\"", "é", "-", ".", "$", "|", "%"] {
            let _any = fill(&format!("{}{other}{}", &whole[..at], &whole[at + 1..]));
        }
    }
}
