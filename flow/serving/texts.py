"""What the pages say, in each language that they speak."""

from collections.abc import Mapping
from types import MappingProxyType

DEFAULT = "en"

TEXTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "accept_title": "Please confirm",
            "accept_text": "Did you take part in “{campaign}”? One click confirms it.",
            "accept_button": "Yes, that was me",
            "reject_title": "Was it not you?",
            "reject_text": "If you did not take part in “{campaign}”, remove what was entered in your name.",
            "reject_button": "Remove it",
            "moderate_accept_title": "Accept this action?",
            "moderate_accept_text": "Action {action} of “{campaign}” will be delivered.",
            "moderate_accept_button": "Accept",
            "moderate_reject_title": "Reject this action?",
            "moderate_reject_text": "Action {action} of “{campaign}” will not be delivered.",
            "moderate_reject_button": "Reject",
            "accepted_title": "Thank you",
            "accepted_text": "It is confirmed.",
            "rejected_title": "Removed",
            "rejected_text": "It will not be passed on.",
            "late_title": "This was decided before",
            "late_text": "It cannot be changed with this link any more. Please write to the organisation.",
            "not_found_title": "This link does not work",
            "not_found_text": "Perhaps it was cut off in the mail. Please copy the whole of it.",
            "expired_title": "This link has expired",
            "expired_text": "Please ask for a new one.",
            "unauthorized_title": "This token is not known",
            "unauthorized_text": "A program must send the token of its organisation.",
            "busy_title": "Too many requests",
            "busy_text": "Please try again in a minute.",
            "away_title": "This cannot be done right now",
            "away_text": "Nothing is lost. Please try again in a few minutes.",
        },
        "de": {
            "accept_title": "Bitte bestätigen",
            "accept_text": "Haben Sie bei „{campaign}“ mitgemacht? Ein Klick bestätigt es.",
            "accept_button": "Ja, das war ich",
            "reject_title": "Das waren nicht Sie?",
            "reject_text": "Wenn Sie bei „{campaign}“ nicht mitgemacht haben, entfernen Sie den Eintrag.",
            "reject_button": "Eintrag entfernen",
            "moderate_accept_title": "Diese Aktion annehmen?",
            "moderate_accept_text": "Aktion {action} von „{campaign}“ wird weitergegeben.",
            "moderate_accept_button": "Annehmen",
            "moderate_reject_title": "Diese Aktion ablehnen?",
            "moderate_reject_text": "Aktion {action} von „{campaign}“ wird nicht weitergegeben.",
            "moderate_reject_button": "Ablehnen",
            "accepted_title": "Vielen Dank",
            "accepted_text": "Es ist bestätigt.",
            "rejected_title": "Entfernt",
            "rejected_text": "Der Eintrag wird nicht weitergegeben.",
            "late_title": "Darüber ist schon entschieden",
            "late_text": "Dieser Link kann es nicht mehr ändern. Bitte schreiben Sie der Organisation.",
            "not_found_title": "Dieser Link funktioniert nicht",
            "not_found_text": "Vielleicht wurde er in der E-Mail abgeschnitten. Bitte kopieren Sie ihn ganz.",
            "expired_title": "Dieser Link ist abgelaufen",
            "expired_text": "Bitte fordern Sie einen neuen an.",
            "unauthorized_title": "Dieses Token ist unbekannt",
            "unauthorized_text": "Ein Programm muss das Token seiner Organisation senden.",
            "busy_title": "Zu viele Anfragen",
            "busy_text": "Bitte versuchen Sie es in einer Minute noch einmal.",
            "away_title": "Das geht gerade nicht",
            "away_text": "Nichts ist verloren. Bitte versuchen Sie es in ein paar Minuten noch einmal.",
        },
        "fr": {
            "accept_title": "Veuillez confirmer",
            "accept_text": "Avez-vous participé à « {campaign} » ? Un clic suffit pour le confirmer.",
            "accept_button": "Oui, c’était moi",
            "reject_title": "Ce n’était pas vous ?",
            "reject_text": "Si vous n’avez pas participé à « {campaign} », retirez cette saisie.",
            "reject_button": "Retirer",
            "moderate_accept_title": "Accepter cette action ?",
            "moderate_accept_text": "L’action {action} de « {campaign} » sera transmise.",
            "moderate_accept_button": "Accepter",
            "moderate_reject_title": "Refuser cette action ?",
            "moderate_reject_text": "L’action {action} de « {campaign} » ne sera pas transmise.",
            "moderate_reject_button": "Refuser",
            "accepted_title": "Merci",
            "accepted_text": "C’est confirmé.",
            "rejected_title": "Retiré",
            "rejected_text": "Rien ne sera transmis.",
            "late_title": "La décision est déjà prise",
            "late_text": "Ce lien ne permet plus de la changer. Veuillez écrire à l’organisation.",
            "not_found_title": "Ce lien ne fonctionne pas",
            "not_found_text": "Il a peut-être été coupé dans le courriel. Veuillez le copier en entier.",
            "expired_title": "Ce lien a expiré",
            "expired_text": "Veuillez en demander un nouveau.",
            "unauthorized_title": "Ce jeton n’est pas connu",
            "unauthorized_text": "Un programme doit envoyer le jeton de son organisation.",
            "busy_title": "Trop de demandes",
            "busy_text": "Veuillez réessayer dans une minute.",
            "away_title": "C’est impossible pour le moment",
            "away_text": "Rien n’est perdu. Veuillez réessayer dans quelques minutes.",
        },
        "es": {
            "accept_title": "Confirme, por favor",
            "accept_text": "¿Participó usted en «{campaign}»? Un clic lo confirma.",
            "accept_button": "Sí, fui yo",
            "reject_title": "¿No fue usted?",
            "reject_text": "Si no participó en «{campaign}», retire lo que se anotó en su nombre.",
            "reject_button": "Retirarlo",
            "moderate_accept_title": "¿Aceptar esta acción?",
            "moderate_accept_text": "La acción {action} de «{campaign}» se entregará.",
            "moderate_accept_button": "Aceptar",
            "moderate_reject_title": "¿Rechazar esta acción?",
            "moderate_reject_text": "La acción {action} de «{campaign}» no se entregará.",
            "moderate_reject_button": "Rechazar",
            "accepted_title": "Gracias",
            "accepted_text": "Está confirmado.",
            "rejected_title": "Retirado",
            "rejected_text": "No se entregará a nadie.",
            "late_title": "Ya estaba decidido",
            "late_text": "Con este enlace ya no se puede cambiar. Escriba, por favor, a la organización.",
            "not_found_title": "Este enlace no funciona",
            "not_found_text": "Quizá se cortó en el correo. Cópielo entero, por favor.",
            "expired_title": "Este enlace ha caducado",
            "expired_text": "Pida uno nuevo, por favor.",
            "unauthorized_title": "Este token no es conocido",
            "unauthorized_text": "Un programa debe enviar el token de su organización.",
            "busy_title": "Demasiadas peticiones",
            "busy_text": "Inténtelo de nuevo dentro de un minuto.",
            "away_title": "Ahora mismo no es posible",
            "away_text": "No se ha perdido nada. Inténtelo de nuevo dentro de unos minutos.",
        },
    }
)


def language_of(locale: str) -> str:
    """Return the language in which somebody with *locale* (`de_AT`, `de`) is spoken to."""
    language = locale.replace("-", "_").partition("_")[0].lower()
    return language if language in TEXTS else DEFAULT


def negotiated(accepted: str) -> str:
    """Return the language that a browser's Accept-Language asks for, when nothing else tells it."""
    for part in accepted.split(",")[:10]:
        language = part.partition(";")[0].strip().partition("-")[0].lower()
        if language in TEXTS:
            return language
    return DEFAULT
