//! `pressroom tls trust`: how browsers and programs come to trust the local authority.

use pressroom_api::failure::Failure;

use super::{Context, Done};

pub(super) fn trust(context: &Context<'_>) -> Done {
    let Some(path) = context.machine.local_authority(&context.place) else {
        return Err(Failure::yours("there is no local authority yet")
            .cause("it is made when the first site without a certificate of yours is served")
            .hint(format!("run `{}` first", context.command("up"))));
    };
    let path = path.display();
    context.talk.data(&path);
    context.talk.say(format!(
        "\
This certificate signs those of sites that have none of their own. It can only sign for their names and for localhost,
and its key never leaves this machine. To trust it:
  this machine (Debian)  cp {path} /usr/local/share/ca-certificates/pressroom.crt && update-ca-certificates
  Firefox                Settings → Privacy & Security → Certificates → View Certificates → Authorities → Import
  Chromium               chrome://certificate-manager → Local certificates → Custom → Import
  curl                   curl --cacert {path} URL
For a site that others visit, name a certificate of your own in `[[site]]`: certificate = {{ chain = \"…\", key = \"…\" }}"
    ));
    Ok(0)
}
